/* docs/format.md, "Modes" and "Segments": what payloads have in common. */
#include "inside.h"

#ifndef DCZ_SEGMENT
#define DCZ_SEGMENT (1 << 20) /* weights; tests have smaller ones */
#endif

enum { MOST_ENTRIES = 1 << 16, WIDEST_GAP = 12, SEGMENT = DCZ_SEGMENT };

static float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static int finite(uint32_t bits) { return (bits >> 23 & 255) != 255; }

uint32_t dcz_widened(uint32_t half, int *wrong) {
    const uint32_t sign = half >> 15 << 31, rest = half & 0x7FFF;
    uint32_t fraction = rest & 0x3FF, exponent = rest >> 10;
    if (rest > 0x7C00) *wrong = 1; /* NaN */
    if (exponent == 31) return sign | 0x7F800000u | fraction << 13;
    if (!exponent) {
        if (!fraction) return sign;
        for (exponent = 1; !(fraction & 0x400); exponent--) fraction <<= 1;
    }
    return sign | (exponent + 112) << 23 | (fraction & 0x3FF) << 13;
}

int dcz_read_step(source *s, float *step) {
    const uint32_t bits = dcz_u32(s);
    *step = as_float(bits);
    return !s->wrong && finite(bits) && bits && !(bits >> 31) ? DCZ_OK : DCZ_DAMAGED;
}

uint32_t dcz_product(int32_t whole, float step, int *wrong) {
    const float factor = (float)whole, product = factor * step; /* rounded once, to float32 */
    if (!finite(as_bits(product))) *wrong = 1;
    return as_bits(product);
}

static int read_grid(source *s, head *h) {
    int32_t level = -(int32_t)dcz_count(s, h->entries);
    float step;
    if (s->wrong || dcz_read_step(s, &step)) return DCZ_DAMAGED;
    for (uint32_t i = 1; i <= h->entries; i++, level++) {
        level += !level;
        h->table[i] = dcz_product(level, step, &s->wrong);
    }
    return s->wrong ? DCZ_DAMAGED : DCZ_OK;
}

int dcz_read_head(source *s, int shared, head *h, arena *a) {
    const uint32_t entries = shared ? (uint32_t)dcz_count(s, MOST_ENTRIES) : 0;
    const uint32_t byte = dcz_byte(s), form = byte >> 4;
    h->entries = entries;
    h->width = byte & 15;
    h->half = form == 1;
    if (s->wrong || h->width > WIDEST_GAP || form > 1u + (shared != 0))
        return DCZ_DAMAGED;
    if (!shared) return DCZ_OK;
    h->table = dcz_cut(a, 4 * ((size_t)entries + 1));
    if (!h->table) return DCZ_NO_ROOM;
    h->table[0] = 0;
    if (form == 2) return read_grid(s, h);
    const uint32_t item = h->half ? 2 : 4;
    const uint8_t *at = dcz_take(s, item * entries);
    if (!at) return DCZ_DAMAGED;
    for (uint32_t i = 0; i < entries; i++, at += item)
        h->table[i + 1] = h->half ? dcz_widened((uint32_t)(at[0] | at[1] << 8), &s->wrong) : dcz_little(at);
    return s->wrong ? DCZ_DAMAGED : DCZ_OK;
}

/* Read the head of a segment. */
static void read_segment(segments *g, segment *found) {
    found->weights = g->left < SEGMENT ? g->left : SEGMENT;
    found->kept = found->fillers = 0;
    if (g->counted) {
        found->kept = dcz_count(&g->heads, found->weights);
        found->fillers = dcz_count(&g->heads, found->weights - found->kept);
    }
    found->streams.size = dcz_count(&g->heads, dcz_left(&g->heads));
    if (g->counted && !found->kept && (found->fillers || found->streams.size)) g->heads.wrong = 1;
    g->left -= found->weights;
}

int dcz_open_segments(segments *g, source *s, size_t elements, const size_t *counts) {
    const segments start = {*s, *s, elements, {counts ? counts[0] : 0, counts ? counts[1] : 0},
                            counts != 0, elements > SEGMENT};
    size_t kept = 0, fillers = 0, bytes = 0;
    *g = start;
    if (!g->several) return DCZ_OK;
    while (g->left && !g->heads.wrong) {
        segment each;
        read_segment(g, &each);
        kept += each.kept;
        fillers += each.fillers;
        bytes += each.streams.size;
    }
    const source bodies = g->heads;
    if (bodies.wrong || bytes != dcz_left(&bodies)) return DCZ_DAMAGED;
    if (counts && (kept != counts[0] || fillers != counts[1])) return DCZ_DAMAGED;
    *g = start;
    g->bodies = bodies;
    return DCZ_OK;
}

int dcz_next_segment(segments *g, segment *found) {
    if (!g->left) return 0;
    if (g->several) {
        read_segment(g, found);
        found->streams.at = dcz_take(&g->bodies, found->streams.size);
    } else {
        found->weights = g->left;
        found->kept = g->counts[0];
        found->fillers = g->counts[1];
        found->streams.size = dcz_left(&g->bodies);
        found->streams.at = dcz_take(&g->bodies, found->streams.size);
        g->left = 0;
    }
    return 1;
}
