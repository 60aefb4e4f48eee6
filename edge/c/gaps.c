/* docs/format.md, "Entries": GAP_SHARED, GAP_FLOAT, GAP_RANS. */
#include "inside.h"

/* What entries are read with, in any of the three modes: in GAP_RANS tables, else codes. */
typedef struct {
    uint32_t mode, half;
    code codes[2];
    frequencies tables[2];
} reader;

/* The streams of a segment. */
typedef struct {
    bits gaps, indices;
    source floats;
    rans both;
} streams;

static int read_tables(reader *r, source *s, const head *h, arena *a) {
    const uint32_t gaps = 1u << h->width, indices = h->entries + 1;
    int status;
    if (r->mode == DCZ_GAP_RANS) {
        if ((status = dcz_read_frequencies(s, gaps, &r->tables[0], a))) return status;
        return dcz_read_frequencies(s, indices, &r->tables[1], a);
    }
    if ((status = dcz_read_code(s, gaps, &r->codes[0], a))) return status;
    return r->mode == DCZ_GAP_SHARED ? dcz_read_code(s, indices, &r->codes[1], a) : DCZ_OK;
}

static int open_streams(const reader *r, streams *x, const segment *g, arena *a) {
    const size_t entries = g->kept + g->fillers;
    if (r->mode == DCZ_GAP_RANS) return dcz_open_rans(&x->both, g->streams, 2 * entries, a);
    source s = dcz_source(g->streams.at, g->streams.size);
    const size_t size = dcz_count(&s, dcz_left(&s));
    const bits first = {dcz_take(&s, size), size, 0}, second = {s.at, dcz_left(&s), 0};
    x->gaps = first;
    x->indices = second;
    x->floats = s;
    if (s.wrong) return DCZ_DAMAGED;
    if (r->mode == DCZ_GAP_FLOAT && dcz_left(&s) != entries * (r->half ? 2 : 4)) return DCZ_DAMAGED;
    return DCZ_OK;
}

static uint32_t next_gap(const reader *r, streams *x, size_t i) {
    return r->mode == DCZ_GAP_RANS ? dcz_pop(&x->both, 2 * i, &r->tables[0])
                                   : dcz_symbol(&r->codes[0], &x->gaps);
}

static uint32_t next_value(const reader *r, streams *x, size_t i) {
    if (r->mode == DCZ_GAP_SHARED) return dcz_symbol(&r->codes[1], &x->indices);
    if (r->mode == DCZ_GAP_RANS) return dcz_pop(&x->both, 2 * i + 1, &r->tables[1]);
    if (!r->half) return dcz_u32(&x->floats);
    const uint32_t low = dcz_byte(&x->floats);
    const uint32_t high = dcz_byte(&x->floats);
    return dcz_widened(low | high << 8, &x->floats.wrong);
}

static int close_streams(const reader *r, const streams *x) {
    if (r->mode == DCZ_GAP_RANS) return dcz_close_rans(&x->both);
    if (!dcz_bits_end(&x->gaps)) return DCZ_DAMAGED;
    if (r->mode == DCZ_GAP_FLOAT) return x->floats.wrong ? DCZ_DAMAGED : DCZ_OK;
    return dcz_bits_end(&x->indices) ? DCZ_OK : DCZ_DAMAGED;
}

static void put_zeros(sink *k, size_t count) {
    while (count--) dcz_put(k, 0);
}

static int read_segment(const reader *r, const segment *g, uint32_t widest, sink *k, arena *a) {
    streams x;
    size_t left = g->weights, fillers = 0;
    uint32_t value = 1;
    int status;
    if (g->kept && (status = open_streams(r, &x, g, a))) return status;
    for (size_t i = 0; i < g->kept + g->fillers; i++) {
        const uint32_t gap = next_gap(r, &x, i);
        value = next_value(r, &x, i);
        if (gap >= left) return DCZ_DAMAGED; /* past the end */
        if (!value && gap != widest) return DCZ_DAMAGED;
        fillers += !value;
        put_zeros(k, gap);
        dcz_put(k, value);
        left -= gap + 1;
    }
    if (fillers != g->fillers || !value) return DCZ_DAMAGED;
    put_zeros(k, left);
    return g->kept ? close_streams(r, &x) : DCZ_OK;
}

int dcz_gaps(const dcz_tensor *t, source *s, const head *h, sink *k, arena *a) {
    size_t counts[2];
    reader r = {.mode = t->mode, .half = h->half};
    segments all;
    segment each;
    int status;
    counts[0] = dcz_count(s, t->elements);
    counts[1] = dcz_count(s, t->elements - counts[0]);
    if (s->wrong) return DCZ_DAMAGED;
    if (!counts[0]) {
        if (counts[1] || dcz_left(s)) return DCZ_DAMAGED;
        put_zeros(k, t->elements);
        return DCZ_OK;
    }
    if ((status = read_tables(&r, s, h, a))) return status;
    if ((status = dcz_open_segments(&all, s, t->elements, counts))) return status;
    while (dcz_next_segment(&all, &each)) {
        const size_t used = a->used;
        if ((status = read_segment(&r, &each, (1u << h->width) - 1, k, a))) return status;
        a->used = used;
    }
    return DCZ_OK;
}
