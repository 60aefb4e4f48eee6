#include "streams.h"

#include <string.h>

#include "context.h"

enum {
    LONGEST = 17, /* bits of a codeword */
    QUICK = 11,   /* bits of a code's lookup table */
    BLOCK = 1 << 15,
    PRECISION = 14,
    TOTAL = 1 << PRECISION,
    MAX_LANES = 12,
    LOW = 1 << 16
};

/* --- CRC-32, 16 bytes at a time --------------------------------------------------------------- */

void dcz_crc_tables(uint32_t *tables) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        tables[i] = crc;
    }
    for (uint32_t i = 256; i < 16 * 256; i++)
        tables[i] = tables[i - 256] >> 8 ^ tables[tables[i - 256] & 255];
}

static uint32_t little(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint32_t dcz_crc(const uint32_t *tables, uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    while (size >= 16) {
        uint32_t next = 0;
        for (int word = 0; word < 4; word++) {
            uint32_t x = little(data + 4 * word) ^ (word ? 0 : crc);
            const uint32_t *t = tables + 256 * (12 - 4 * word);
            next ^= t[768 + (x & 255)] ^ t[512 + (x >> 8 & 255)] ^ t[256 + (x >> 16 & 255)] ^
                    t[x >> 24];
        }
        crc = next;
        data += 16;
        size -= 16;
    }
    while (size--) crc = crc >> 8 ^ tables[(crc ^ *data++) & 255];
    return ~crc;
}

/* --- where symbols go, a block at a time ------------------------------------------------------ */

typedef struct {
    dcz_target *t;
    uint64_t start, stop; /* of the block that is open */
    uint8_t *block;
    uint8_t scratch[2 * BLOCK];
} sink;

static int usable(const dcz_target *t) {
    if (t->index_bytes != 1 && t->index_bytes != 2) return 0;
    return t->n <= UINT64_MAX / 8 && !(t->floats && !t->table) && t->crc_tables;
}

static void open_block(sink *s, uint64_t start) {
    dcz_target *t = s->t;
    s->start = start;
    s->stop = t->n - start < BLOCK ? t->n : start + BLOCK;
    s->block = t->indices ? t->indices + start * t->index_bytes : s->scratch;
    if (s->stop == start) return;
    memset(s->block, 0, (s->stop - start) * t->index_bytes);
    if (t->floats) memset(t->floats + start, 0, (s->stop - start) * sizeof(float));
}

static void close_block(sink *s) {
    dcz_target *t = s->t;
    t->crc = dcz_crc(t->crc_tables, t->crc, s->block, (s->stop - s->start) * t->index_bytes);
}

static void open_sink(sink *s, dcz_target *target) {
    s->t = target;
    target->crc = 0;
    open_block(s, 0);
}

static void reach(sink *s, uint64_t position) {
    while (position >= s->stop) {
        close_block(s);
        open_block(s, s->stop);
    }
}

static inline void store(const sink *s, uint64_t position, uint32_t index) {
    if (s->t->index_bytes == 1) {
        s->block[position - s->start] = (uint8_t)index;
    } else {
        s->block[2 * (position - s->start)] = (uint8_t)index;
        s->block[2 * (position - s->start) + 1] = (uint8_t)(index >> 8);
    }
}

static void put(const sink *s, uint64_t position, uint32_t index) {
    store(s, position, index);
    if (s->t->floats) s->t->floats[position] = s->t->table[index];
}

/* Set the floats of a block whose indices are there from start to stop. */
static void widen(const sink *s, uint64_t start, uint64_t stop) {
    const dcz_target *t = s->t;
    if (!t->floats) return;
    if (t->index_bytes == 1) {
        const uint8_t *at = s->block + (start - s->start);
        for (uint64_t i = 0; i < stop - start; i++) t->floats[start + i] = t->table[at[i]];
    } else {
        const uint8_t *at = s->block + 2 * (start - s->start);
        for (uint64_t i = 0; i < stop - start; i++)
            t->floats[start + i] = t->table[at[2 * i] | at[2 * i + 1] << 8];
    }
}

static void close_sink(sink *s) {
    while (s->stop < s->t->n) {
        close_block(s);
        open_block(s, s->stop);
    }
    close_block(s);
}

/* Where an entry stands; DCZ_DAMAGED if it may not. */
typedef struct {
    uint64_t next, zeros;
    uint32_t top, last;
} cursor;

static int place(sink *s, cursor *c, uint32_t gap, uint32_t value) {
    if (gap >= s->t->n - c->next || value >= s->t->entries) return DCZ_DAMAGED;
    c->next += gap;
    reach(s, c->next);
    put(s, c->next++, value);
    c->last = value;
    if (!value) {
        c->zeros++;
        if (gap != c->top) return DCZ_DAMAGED;
    }
    return DCZ_OK;
}

/* --- Huffman codes ---------------------------------------------------------------------------- */

typedef struct {
    uint32_t quick[1 << QUICK]; /* symbol << 8 | length; length 0 for codewords over QUICK bits */
    uint64_t first[LONGEST + 2]; /* first codeword of a length, left-aligned in LONGEST bits */
    uint32_t rank[LONGEST + 2]; /* number of codewords shorter than a length */
    uint32_t symbols[(1 << 16) + 1]; /* in the order of their codewords */
    uint32_t longest;
} reader;

/* Where a stream is read: the next count bits are at the top of the window. */
typedef struct {
    uint64_t window;
    const uint8_t *data;
    uint64_t size, position;
    uint32_t count;
} bits;

static int open_reader(reader *r, const dcz_code *code) {
    uint64_t counts[LONGEST + 1] = {0}, kraft = 0, filled = 0, used = 0;
    if (code->symbols > (1 << 16) + 1) return DCZ_MISUSE;
    for (uint64_t s = 0; s < code->symbols; s++) {
        int8_t length = code->lengths[s];
        if (length < -1 || length > LONGEST) return DCZ_MISUSE;
        if (length < 0) continue;
        counts[length]++;
        kraft += (uint64_t)1 << (LONGEST - length);
    }
    if (kraft != (uint64_t)1 << LONGEST) return DCZ_MISUSE;
    r->longest = 0;
    for (uint32_t length = 0; length <= LONGEST; length++) {
        r->first[length] = filled;
        r->rank[length] = (uint32_t)used;
        filled += counts[length] << (LONGEST - length);
        used += counts[length];
        if (counts[length]) r->longest = length;
    }
    r->first[LONGEST + 1] = filled;
    for (uint32_t length = 0; length <= LONGEST; length++) counts[length] = r->rank[length];
    for (uint64_t s = 0; s < code->symbols; s++)
        if (code->lengths[s] >= 0) r->symbols[counts[code->lengths[s]]++] = (uint32_t)s;
    memset(r->quick, 0, sizeof r->quick);
    for (uint32_t length = 0, i = 0, at = 0; length <= QUICK && length <= r->longest; length++)
        for (; i < counts[length]; i++)
            for (uint32_t end = at + (1u << (QUICK - length)); at < end; at++)
                r->quick[at] = r->symbols[i] << 8 | length;
    return DCZ_OK;
}

static bits open_bits(const dcz_code *code) {
    bits b = {0, code->stream, code->size, 0, 0};
    return b;
}

static inline void refill(bits *b) {
    if (b->position + 8 <= b->size) {
        const uint8_t *at = b->data + b->position;
        uint64_t next = 0;
        for (int i = 0; i < 8; i++) next = next << 8 | at[i];
        b->window |= next >> b->count;
        b->position += (63 - b->count) >> 3;
        b->count |= 56;
        return;
    }
    while (b->count <= 56) {
        uint64_t next = b->position < b->size ? b->data[b->position] : 0;
        b->window |= next << (56 - b->count);
        b->position++;
        b->count += 8;
    }
}

/* The next symbol; the window has as many bits as the longest codeword. */
static inline uint32_t symbol(const reader *r, bits *b) {
    uint32_t found = r->quick[b->window >> (64 - QUICK)], length = found & 255;
    if (!length && r->longest) {
        uint64_t code = b->window >> (64 - LONGEST);
        length = QUICK + 1;
        while (code >= r->first[length + 1]) length++;
        found = r->symbols[r->rank[length] +
                           ((code - r->first[length]) >> (LONGEST - length))] << 8;
    }
    b->window <<= length;
    b->count -= length;
    return found >> 8;
}

/* Whether all bytes were used, and the last one's rest is 0. */
static int close_bits(const bits *b) {
    uint64_t used = 8 * b->position - b->count;
    if ((used + 7) / 8 != b->size) return DCZ_DAMAGED;
    return used % 8 && b->data[b->size - 1] & 0xFF >> used % 8 ? DCZ_DAMAGED : DCZ_OK;
}

typedef struct {
    sink s;
    reader gaps, values;
} gap_state;

/* Entries without gaps: one for each weight up to the last that is not zero. */
static int decode_all(gap_state *g, bits *values, cursor *c, uint64_t entries) {
    sink *s = &g->s;
    const reader *r = &g->values;
    const int wide = s->t->index_bytes == 2;
    const uint64_t often = r->longest <= QUICK ? 5 : 3; /* symbols in 56 bits */
    bits b = *values;
    while (c->next < entries) {
        reach(s, c->next);
        const uint64_t start = c->next, stop = entries < s->stop ? entries : s->stop;
        uint8_t *restrict out = s->block;
        uint64_t zeros = 0;
        uint32_t largest = 0, value = 0;
        for (uint64_t i = 0; i < stop - start;) {
            const uint64_t end = stop - start - i < often ? stop - start : i + often;
            refill(&b);
            for (; i < end; i++) {
                value = symbol(r, &b);
                largest = value > largest ? value : largest;
                zeros += !value;
                if (wide) {
                    out[2 * i] = (uint8_t)value;
                    out[2 * i + 1] = (uint8_t)(value >> 8);
                } else {
                    out[i] = (uint8_t)value;
                }
            }
        }
        if (largest >= s->t->entries) return DCZ_DAMAGED;
        c->next = stop;
        c->zeros += zeros;
        c->last = value;
        widen(s, start, stop);
    }
    *values = b;
    return DCZ_OK;
}

size_t dcz_gaps_workspace(void) { return sizeof(gap_state); }

int dcz_decode_gaps(const dcz_code *gaps, const dcz_code *values, uint64_t kept, uint64_t fillers,
                    uint32_t width, dcz_target *target, void *workspace, size_t workspace_size) {
    gap_state *g = workspace;
    int status;
    if (workspace_size < sizeof *g || width > 12 || !usable(target)) return DCZ_MISUSE;
    if (kept > target->n || fillers > target->n - kept) return DCZ_MISUSE;
    /* Codes are checked before anything is written: libwebp's CVE-2023-4863 was a code that was not. */
    if ((status = open_reader(&g->gaps, gaps)) || (status = open_reader(&g->values, values)))
        return status;
    cursor c = {0, 0, (1u << width) - 1, 1};
    open_sink(&g->s, target);
    bits first = open_bits(gaps), second = open_bits(values);
    uint64_t left = kept + fillers;
    if (!width && !g->gaps.longest) {
        if ((status = decode_all(g, &second, &c, left))) return status;
        left = 0;
    }
    while (left) {
        uint32_t few = left < 3 ? (uint32_t)left : 3;
        left -= few;
        refill(&first);
        refill(&second);
        while (few--) {
            uint32_t gap = symbol(&g->gaps, &first), value = symbol(&g->values, &second);
            if ((status = place(&g->s, &c, gap, value))) return status;
        }
    }
    if (c.zeros != fillers || !c.last) return DCZ_DAMAGED;
    if ((status = close_bits(&first)) || (status = close_bits(&second))) return status;
    close_sink(&g->s);
    return DCZ_OK;
}

/* --- rANS ------------------------------------------------------------------------------------- */

typedef struct {
    uint16_t frequency, bias;
    uint32_t symbol;
} slot_entry;

typedef struct {
    sink s;
    uint32_t states[1 << MAX_LANES];
    slot_entry slots[];
} rans_state;

size_t dcz_rans_workspace(uint64_t tables) {
    return sizeof(rans_state) + (size_t)tables * TOTAL * sizeof(slot_entry);
}

/* Whether a workspace is large enough, whatever the number of tables. */
static int holds(size_t size, uint64_t tables) {
    return size >= sizeof(rans_state) &&
           (size - sizeof(rans_state)) / (TOTAL * sizeof(slot_entry)) >= tables;
}

typedef struct {
    const uint8_t *words;
    uint64_t left;
    uint32_t mask;
    uint32_t starved;
} feed;

/* Tables, states and words of a stream. */
static int open_rans(rans_state *r, const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                     const uint8_t *stream, uint64_t size, feed *f) {
    for (uint64_t t = 0; t < tables; t++) {
        uint32_t at = 0;
        for (uint64_t s = 0; s < alphabet; s++) {
            uint32_t many = frequencies[t * alphabet + s];
            if (many > TOTAL - at) return DCZ_MISUSE;
            for (uint32_t bias = 0; bias < many; bias++) {
                slot_entry e = {(uint16_t)many, (uint16_t)bias, (uint32_t)s};
                r->slots[t * TOTAL + at++] = e;
            }
        }
        if (at != TOTAL) return DCZ_MISUSE;
    }
    if (!size || stream[0] > MAX_LANES) return DCZ_DAMAGED;
    uint64_t head = 1 + ((uint64_t)4 << stream[0]);
    if (size < head || (size - head) % 2) return DCZ_DAMAGED;
    f->mask = (1u << stream[0]) - 1;
    for (uint32_t lane = 0; lane <= f->mask; lane++) {
        r->states[lane] = little(stream + 1 + 4 * lane);
        if (r->states[lane] < LOW) return DCZ_DAMAGED;
    }
    f->words = stream + head;
    f->left = (size - head) / 2;
    f->starved = 0;
    return DCZ_OK;
}

static inline uint32_t next_symbol(rans_state *r, feed *f, uint64_t i, uint32_t table) {
    uint32_t x = r->states[i & f->mask];
    slot_entry e = r->slots[(table << PRECISION) + (x & (TOTAL - 1))];
    x = e.frequency * (x >> PRECISION) + e.bias;
    if (x < LOW) {
        if (f->left) {
            x = x << 16 | f->words[0] | (uint32_t)f->words[1] << 8;
            f->words += 2;
            f->left--;
        } else {
            f->starved = 1;
            x = LOW;
        }
    }
    r->states[i & f->mask] = x;
    return e.symbol;
}

static int close_rans(const rans_state *r, const feed *f) {
    if (f->starved || f->left) return DCZ_DAMAGED;
    for (uint32_t lane = 0; lane <= f->mask; lane++)
        if (r->states[lane] != LOW) return DCZ_DAMAGED;
    return DCZ_OK;
}

int dcz_decode_rans_gaps(const uint32_t *frequencies, uint64_t alphabet, const uint8_t *stream,
                         uint64_t size, uint64_t kept, uint64_t fillers, uint32_t width,
                         dcz_target *target, void *workspace, size_t workspace_size) {
    rans_state *r = workspace;
    feed f;
    int status;
    if (!holds(workspace_size, 2) || width > 12 || !usable(target)) return DCZ_MISUSE;
    if (kept > target->n || fillers > target->n - kept) return DCZ_MISUSE;
    if ((status = open_rans(r, frequencies, 2, alphabet, stream, size, &f))) return status;
    cursor c = {0, 0, (1u << width) - 1, 1};
    open_sink(&r->s, target);
    for (uint64_t i = 0; i < 2 * (kept + fillers); i += 2) {
        uint32_t gap = next_symbol(r, &f, i, 0), value = next_symbol(r, &f, i + 1, 1);
        if (f.starved || (status = place(&r->s, &c, gap, value))) return DCZ_DAMAGED;
    }
    if (c.zeros != fillers || !c.last) return DCZ_DAMAGED;
    if ((status = close_rans(r, &f))) return status;
    close_sink(&r->s);
    return DCZ_OK;
}

/* Decode count symbols, the first one number i, to out; the largest of them is returned. Locals, so
 * that writing bytes does not make the compiler read everything anew. */
static inline uint32_t decode_run(rans_state *r, feed *f, uint64_t i, const uint8_t *restrict tables,
                                  uint32_t class, uint64_t count, uint8_t *restrict out,
                                  const int wide) {
    const slot_entry *restrict slots = r->slots + ((size_t)class << PRECISION);
    uint32_t *restrict states = r->states;
    const uint8_t *words = f->words;
    const uint64_t left = f->left;
    const uint32_t mask = f->mask;
    const int plenty = left > count; /* words for all, and one to look at */
    uint64_t used = 0;
    uint32_t largest = 0;
    for (uint64_t k = 0; k < count; k++) {
        uint32_t x = states[(i + k) & mask];
        const slot_entry e = slots[((uint32_t)tables[k] << PRECISION) + (x & (TOTAL - 1))];
        x = e.frequency * (x >> PRECISION) + e.bias;
        if (plenty) {
            const uint32_t word = words[2 * used] | (uint32_t)words[2 * used + 1] << 8;
            used += x < LOW;
            x = x < LOW ? x << 16 | word : x;
        } else if (x < LOW) {
            if (used < left) {
                x = x << 16 | words[2 * used] | (uint32_t)words[2 * used + 1] << 8;
                used++;
            } else {
                f->starved = 1;
                x = LOW;
            }
        }
        states[(i + k) & mask] = x;
        largest = e.symbol > largest ? e.symbol : largest;
        if (wide) {
            out[2 * k] = (uint8_t)e.symbol;
            out[2 * k + 1] = (uint8_t)(e.symbol >> 8);
        } else {
            out[k] = (uint8_t)e.symbol;
        }
    }
    f->words += 2 * used;
    f->left -= used;
    return largest;
}

int dcz_decode_dense(const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                     const uint8_t *stream, uint64_t size, const uint8_t *row_class,
                     const uint8_t *column_class, uint64_t columns, dcz_target *target,
                     void *workspace, size_t workspace_size) {
    rans_state *r = workspace;
    feed f;
    int status;
    if (!holds(workspace_size, tables) || !usable(target)) return DCZ_MISUSE;
    if (!columns || target->n % columns) return DCZ_MISUSE;
    const int wide = target->index_bytes == 2;
    uint32_t top = 0;
    for (uint64_t c = 0; c < columns; c++) top = column_class[c] > top ? column_class[c] : top;
    if ((status = open_rans(r, frequencies, tables, alphabet, stream, size, &f))) return status;
    open_sink(&r->s, target);
    for (uint64_t i = 0, row = 0, c = 0; i < target->n;) {
        reach(&r->s, i);
        const uint64_t start = i;
        uint32_t largest = 0;
        while (i < r->s.stop) {
            const uint32_t class = row_class[row];
            const uint64_t room = r->s.stop - i;
            const uint64_t stop = columns - c < room ? columns : c + room;
            if (class >= tables || class + top >= tables) return DCZ_MISUSE;
            const uint32_t found =
                wide ? decode_run(r, &f, i, column_class + c, class, stop - c,
                                  r->s.block + 2 * (i - start), 1)
                     : decode_run(r, &f, i, column_class + c, class, stop - c,
                                  r->s.block + (i - start), 0);
            largest = found > largest ? found : largest;
            i += stop - c;
            c = stop;
            if (c == columns) {
                c = 0;
                row++;
            }
        }
        if (f.starved || largest >= target->entries) return DCZ_DAMAGED;
        widen(&r->s, start, i);
    }
    if ((status = close_rans(r, &f))) return status;
    close_sink(&r->s);
    return DCZ_OK;
}

/* --- writing ---------------------------------------------------------------------------------- */

int dcz_encode_symbols(const uint32_t *codes, const uint8_t *lengths, uint64_t alphabet,
                       const uint32_t *symbols, uint64_t count, uint8_t *out, uint64_t capacity,
                       uint64_t *bits) {
    uint64_t window = 0, position = *bits / 8;
    uint32_t held = *bits % 8;
    if (held) {
        if (position >= capacity) return DCZ_NO_ROOM;
        window = (uint64_t)out[position] >> (8 - held);
    }
    for (uint64_t i = 0; i < count; i++) {
        if (symbols[i] >= alphabet) return DCZ_MISUSE;
        const uint32_t length = lengths[symbols[i]];
        if (length > LONGEST) return DCZ_MISUSE;
        window = window << length | codes[symbols[i]];
        held += length;
        *bits += length;
        while (held >= 8) {
            if (position >= capacity) return DCZ_NO_ROOM;
            held -= 8;
            out[position++] = (uint8_t)(window >> held);
        }
    }
    if (held) {
        if (position >= capacity) return DCZ_NO_ROOM;
        out[position] = (uint8_t)(window << (8 - held));
    }
    return DCZ_OK;
}

int dcz_encode_rans(const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                    const uint32_t *symbols, const uint8_t *contexts, uint64_t count,
                    uint32_t lanes, uint32_t *states, uint16_t *out, uint64_t capacity,
                    uint64_t *used, void *workspace, size_t workspace_size) {
    uint32_t *starts = workspace;
    uint64_t place = capacity;
    if (lanes > MAX_LANES || !alphabet || workspace_size / 4 / alphabet < tables) return DCZ_MISUSE;
    const uint32_t mask = (1u << lanes) - 1;
    for (uint64_t t = 0; t < tables; t++) {
        uint32_t start = 0;
        for (uint64_t s = 0; s < alphabet; s++) {
            starts[t * alphabet + s] = start;
            if (frequencies[t * alphabet + s] > TOTAL - start) return DCZ_MISUSE;
            start += frequencies[t * alphabet + s];
        }
    }
    for (uint32_t lane = 0; lane <= mask; lane++) states[lane] = LOW;
    for (uint64_t i = count; i-- > 0;) {
        const uint64_t table = contexts ? contexts[i] : 0;
        if (table >= tables || symbols[i] >= alphabet) return DCZ_MISUSE;
        const uint32_t frequency = frequencies[table * alphabet + symbols[i]];
        uint32_t x = states[i & mask];
        if (!frequency) return DCZ_MISUSE;
        if (x >> (32 - PRECISION) >= frequency) {
            if (!place) return DCZ_NO_ROOM;
            out[--place] = (uint16_t)x;
            x >>= 16;
        }
        const uint32_t quotient = x / frequency;
        states[i & mask] = (quotient << PRECISION) + (x - quotient * frequency) +
                           starts[table * alphabet + symbols[i]];
    }
    *used = capacity - place;
    return DCZ_OK;
}
