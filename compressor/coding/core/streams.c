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
    MAX_TABLES = 256,
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
    if (t->entries > (t->index_bytes == 1 ? 1u << 8 : 1u << 16)) return 0;
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

/* Where the next entry may stand, the fillers so far, the longest gap, and the last value. */
typedef struct {
    uint64_t next, zeros;
    uint32_t top, last;
} cursor;

/* Put entries whose places were checked; with table and floats, or neither. */
static inline void put(sink *s, cursor *c, const uint16_t *restrict gaps,
                       const uint16_t *restrict values, uint64_t count,
                       const float *restrict table, float *restrict floats, const int wide) {
    uint64_t next = c->next;
    for (uint64_t k = 0; k < count;) {
        reach(s, next + gaps[k]);
        uint8_t *restrict block = s->block;
        const uint64_t start = s->start, stop = s->stop;
        for (; k < count && next + gaps[k] < stop; k++) {
            const uint16_t value = values[k];
            next += gaps[k];
            if (wide) {
                block[2 * (next - start)] = (uint8_t)value;
                block[2 * (next - start) + 1] = (uint8_t)(value >> 8);
            } else {
                block[next - start] = (uint8_t)value;
            }
            if (floats) floats[next] = table[value];
            next++;
        }
    }
    c->next = next;
}

/* Place entries, each of whose values is below target->entries; DCZ_DAMAGED if one may not be. */
static int place(sink *s, cursor *c, const uint16_t *gaps, const uint16_t *values, uint64_t count) {
    const dcz_target *t = s->t;
    const uint32_t top = c->top;
    uint32_t skipped = 0, zeros = 0, wrong = 0;
    for (uint64_t k = 0; k < count; k++) {
        const uint32_t zero = !values[k];
        skipped += gaps[k];
        zeros += zero;
        wrong |= zero & (gaps[k] != top);
    }
    if (wrong || skipped + count > t->n - c->next) return DCZ_DAMAGED;
    c->zeros += zeros;
    c->last = values[count - 1];
    if (t->index_bytes == 2)
        put(s, c, gaps, values, count, t->table, t->floats, 1);
    else if (t->floats)
        put(s, c, gaps, values, count, t->table, t->floats, 0);
    else
        put(s, c, gaps, values, count, 0, 0, 0);
    return DCZ_OK;
}

enum { BATCH = 512 /* entries decoded before they are placed */ };

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

enum { MANY = 12 /* bits of the lookup table for several symbols */ };

typedef struct {
    sink s;
    reader gaps, values;
    uint16_t gap_symbols[BATCH], value_symbols[BATCH];
    uint64_t several[1 << MANY];
} gap_state;

/* For each MANY bits, up to six symbols below 256 that they begin with, one a byte; their number in
 * the next byte, 0 where not one is whole; and the bits that they take in the last. */
static void list_symbols(const reader *r, uint64_t *several) {
    for (uint32_t window = 0; window < 1 << MANY; window++) {
        uint64_t found = 0;
        uint32_t count = 0, used = 0;
        while (count < 6) {
            const uint32_t rest = window << used & ((1 << MANY) - 1);
            const uint32_t next = r->quick[rest >> (MANY - QUICK)], length = next & 255;
            if (!length || used + length > MANY) break;
            found |= (uint64_t)(next >> 8) << 8 * count++;
            used += length;
        }
        several[window] = found | (uint64_t)count << 48 | (uint64_t)used << 56;
    }
}

/* Decode count symbols below 256 to out. */
static void decode_bytes(const gap_state *g, bits *stream, uint64_t count, uint8_t *restrict out) {
    const reader *r = &g->values;
    bits b = *stream;
    uint64_t i = 0;
    while (count - i >= 32) {
        refill(&b);
        for (int turn = 0; turn < 4; turn++) {
            const uint64_t found = g->several[b.window >> (64 - MANY)];
            const uint32_t many = found >> 48 & 255, used = (uint32_t)(found >> 56);
            for (int k = 0; k < 8; k++) out[i + (uint64_t)k] = (uint8_t)(found >> 8 * k);
            i += many;
            b.window <<= used;
            b.count -= used;
            if (!many) {
                refill(&b);
                out[i++] = (uint8_t)symbol(r, &b);
                break;
            }
        }
    }
    while (i < count) {
        refill(&b);
        out[i++] = (uint8_t)symbol(r, &b);
    }
    *stream = b;
}

static void decode_words(const reader *r, bits *stream, uint64_t count, uint8_t *restrict out,
                         const int wide) {
    bits b = *stream;
    for (uint64_t i = 0; i < count;) {
        const uint64_t end = count - i < 3 ? count : i + 3;
        refill(&b);
        for (; i < end; i++) {
            const uint32_t value = symbol(r, &b);
            if (wide) {
                out[2 * i] = (uint8_t)value;
                out[2 * i + 1] = (uint8_t)(value >> 8);
            } else {
                out[i] = (uint8_t)value;
            }
        }
    }
    *stream = b;
}

/* Entries without gaps: one for each weight up to the last that is not zero. */
static void decode_all(gap_state *g, bits *values, cursor *c, uint64_t entries) {
    sink *s = &g->s;
    const int wide = s->t->index_bytes == 2;
    const int often = !wide && g->values.longest && entries >= 1 << MANY;
    if (often) list_symbols(&g->values, g->several);
    while (c->next < entries) {
        reach(s, c->next);
        const uint64_t start = c->next, stop = entries < s->stop ? entries : s->stop;
        const uint64_t count = stop - start;
        uint32_t zeros = 0;
        if (often)
            decode_bytes(g, values, count, s->block);
        else
            decode_words(&g->values, values, count, s->block, wide);
        if (wide) {
            for (uint64_t i = 0; i < count; i++) zeros += !(s->block[2 * i] | s->block[2 * i + 1]);
            c->last = s->block[2 * count - 2] | (uint32_t)s->block[2 * count - 1] << 8;
        } else {
            for (uint64_t i = 0; i < count; i++) zeros += !s->block[i];
            c->last = s->block[count - 1];
        }
        c->zeros += zeros;
        c->next = stop;
        widen(s, start, stop);
    }
}

size_t dcz_gaps_workspace(void) { return sizeof(gap_state); }

int dcz_decode_gaps(const dcz_code *gaps, const dcz_code *values, uint64_t kept, uint64_t fillers,
                    uint32_t width, dcz_target *target, void *workspace, size_t workspace_size) {
    gap_state *g = workspace;
    int status;
    if (workspace_size < sizeof *g || width > 12 || !usable(target)) return DCZ_MISUSE;
    if (kept > target->n || fillers > target->n - kept) return DCZ_MISUSE;
    if (gaps->symbols > 1 << 12 || values->symbols > target->entries) return DCZ_MISUSE;
    /* Codes are checked before anything is written: libwebp's CVE-2023-4863 was a code that was not. */
    if ((status = open_reader(&g->gaps, gaps)) || (status = open_reader(&g->values, values)))
        return status;
    cursor c = {0, 0, (1u << width) - 1, 1};
    open_sink(&g->s, target);
    bits first = open_bits(gaps), second = open_bits(values);
    uint64_t left = kept + fillers;
    if (!width && !g->gaps.longest) {
        decode_all(g, &second, &c, left);
        left = 0;
    }
    const uint32_t often = g->gaps.longest <= QUICK && g->values.longest <= QUICK ? 5 : 3;
    while (left) {
        const uint64_t count = left < BATCH ? left : BATCH;
        for (uint64_t k = 0; k < count;) {
            const uint64_t end = count - k < often ? count : k + often;
            refill(&first);
            refill(&second);
            for (; k < end; k++) {
                g->gap_symbols[k] = (uint16_t)symbol(&g->gaps, &first);
                g->value_symbols[k] = (uint16_t)symbol(&g->values, &second);
            }
        }
        if ((status = place(&g->s, &c, g->gap_symbols, g->value_symbols, count))) return status;
        left -= count;
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

/* A table of up to 256 symbols, small enough for the nearest cache: the symbol of each slot, and
 * for each symbol its frequency, and above that its first slot. */
typedef struct {
    uint8_t symbols[TOTAL];
    uint32_t spread[256];
} narrow_table;

typedef struct {
    sink s;
    uint32_t states[1 << MAX_LANES];
    uint16_t gaps[BATCH], values[BATCH];
    slot_entry slots[]; /* or narrow tables, which are smaller */
} rans_state;

size_t dcz_rans_workspace(uint64_t tables) {
    return sizeof(rans_state) + (size_t)tables * TOTAL * sizeof(slot_entry);
}

/* Whether a workspace is large enough, whatever the number of tables. */
static int holds(size_t size, uint64_t tables) {
    return size >= sizeof(rans_state) &&
           (size - sizeof(rans_state)) / (TOTAL * sizeof(slot_entry)) >= tables;
}

/* The words of a stream that were not read yet. */
typedef struct {
    const uint8_t *words, *end;
    uint32_t mask; /* lanes - 1 */
    uint32_t starved;
} feed;

static narrow_table *narrow_tables(rans_state *r) { return (narrow_table *)(void *)r->slots; }

static int open_tables(rans_state *r, const uint32_t *frequencies, uint64_t tables,
                       uint64_t alphabet) {
    const int narrow = alphabet <= 256;
    for (uint64_t t = 0; t < tables; t++) {
        narrow_table *small = narrow_tables(r) + t;
        uint32_t at = 0;
        if (narrow) memset(small->spread, 0, sizeof small->spread);
        for (uint64_t s = 0; s < alphabet; s++) {
            const uint32_t many = frequencies[t * alphabet + s];
            if (many > TOTAL - at) return DCZ_MISUSE;
            if (narrow) {
                small->spread[s] = many | at << 16;
                memset(small->symbols + at, (int)s, many);
                at += many;
                continue;
            }
            for (uint32_t bias = 0; bias < many; bias++) {
                slot_entry e = {(uint16_t)many, (uint16_t)bias, (uint32_t)s};
                r->slots[t * TOTAL + at++] = e;
            }
        }
        if (at != TOTAL) return DCZ_MISUSE;
    }
    return DCZ_OK;
}

/* Tables, states and words of a stream. */
static int open_rans(rans_state *r, const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                     const uint8_t *stream, uint64_t size, feed *f) {
    const int status = open_tables(r, frequencies, tables, alphabet);
    if (status) return status;
    if (!size || stream[0] > MAX_LANES) return DCZ_DAMAGED;
    uint64_t head = 1 + ((uint64_t)4 << stream[0]);
    if (size < head || (size - head) % 2) return DCZ_DAMAGED;
    f->mask = (1u << stream[0]) - 1;
    for (uint32_t lane = 0; lane <= f->mask; lane++) {
        r->states[lane] = little(stream + 1 + 4 * lane);
        if (r->states[lane] < LOW) return DCZ_DAMAGED;
    }
    f->words = stream + head;
    f->end = stream + size;
    f->starved = 0;
    return DCZ_OK;
}

static int close_rans(const rans_state *r, const feed *f) {
    if (f->starved || f->words != f->end) return DCZ_DAMAGED;
    for (uint32_t lane = 0; lane <= f->mask; lane++)
        if (r->states[lane] != LOW) return DCZ_DAMAGED;
    return DCZ_OK;
}

/* The symbol that a state holds in a table; the state goes on, below LOW perhaps. */
static inline uint32_t pop(uint32_t *state, const void *restrict tables, uint32_t table,
                           const int narrow) {
    const uint32_t x = *state, slot = x & (TOTAL - 1);
    if (narrow) {
        const narrow_table *t = (const narrow_table *)tables + table;
        const uint32_t symbol = t->symbols[slot], spread = t->spread[symbol];
        *state = (spread & 0xFFFF) * (x >> PRECISION) + slot - (spread >> 16);
        return symbol;
    }
    const slot_entry e = ((const slot_entry *)tables)[((size_t)table << PRECISION) + slot];
    *state = e.frequency * (x >> PRECISION) + e.bias;
    return e.symbol;
}

/* Bring a state back to LOW or more, where there is a word left to look at. It takes no branch: which
 * state wants a word cannot be predicted. */
static inline uint32_t refilled(uint32_t x, const uint8_t **words) {
    const uint8_t *at = *words;
    const uint32_t more = x << 16 | at[0] | (uint32_t)at[1] << 8, wants = x < LOW;
    *words = at + 2 * wants;
    return x ^ ((x ^ more) & (0 - wants));
}

/* Do so where there may be none. */
static inline uint32_t fed(uint32_t x, feed *f) {
    if (x >= LOW) return x;
    if (f->words == f->end) {
        f->starved = 1;
        return LOW;
    }
    x = x << 16 | f->words[0] | (uint32_t)f->words[1] << 8;
    f->words += 2;
    return x;
}

/* How many of count symbols can be decoded with a word to look at for each; few are not worth it. */
static uint64_t plenty(const feed *f, uint64_t count) {
    const uint64_t left = (uint64_t)(f->end - f->words) / 2;
    return left < 8 ? 0 : left < count ? left : count;
}

/* Decode count entries, the first symbol number i. Locals, and functions that are compiled once for
 * each kind of table, so that the loop is all there is. */
static inline void decode_entries(rans_state *r, feed *f, uint64_t i, uint64_t count,
                                  const int narrow) {
    const void *restrict tables = r->slots;
    uint32_t *restrict states = r->states;
    uint16_t *restrict gaps = r->gaps;
    uint16_t *restrict values = r->values;
    const uint8_t *words = f->words;
    const uint32_t mask = f->mask;
    const uint64_t sure = plenty(f, 2 * count) / 2;
    uint64_t k = 0;
    for (; k < sure; k++) {
        const uint64_t even = (i + 2 * k) & mask, odd = (i + 2 * k + 1) & mask;
        uint32_t x = states[even];
        gaps[k] = (uint16_t)pop(&x, tables, 0, narrow);
        states[even] = refilled(x, &words);
        x = states[odd];
        values[k] = (uint16_t)pop(&x, tables, 1, narrow);
        states[odd] = refilled(x, &words);
    }
    f->words = words;
    for (; k < count; k++) {
        uint32_t *even = &states[(i + 2 * k) & mask], *odd = &states[(i + 2 * k + 1) & mask];
        gaps[k] = (uint16_t)pop(even, tables, 0, narrow);
        *even = fed(*even, f);
        values[k] = (uint16_t)pop(odd, tables, 1, narrow);
        *odd = fed(*odd, f);
    }
}

int dcz_decode_rans_gaps(const uint32_t *frequencies, uint64_t alphabet, const uint8_t *stream,
                         uint64_t size, uint64_t kept, uint64_t fillers, uint32_t width,
                         dcz_target *target, void *workspace, size_t workspace_size) {
    rans_state *r = workspace;
    feed f;
    int status;
    if (!holds(workspace_size, 2) || width > 12 || !usable(target)) return DCZ_MISUSE;
    if (kept > target->n || fillers > target->n - kept || alphabet > 1 << 16) return DCZ_MISUSE;
    for (uint64_t v = target->entries; v < alphabet; v++)
        if (frequencies[alphabet + v]) return DCZ_MISUSE;
    if ((status = open_rans(r, frequencies, 2, alphabet, stream, size, &f))) return status;
    cursor c = {0, 0, (1u << width) - 1, 1};
    open_sink(&r->s, target);
    const int narrow = alphabet <= 256;
    for (uint64_t i = 0, all = kept + fillers; i < all;) {
        const uint64_t count = all - i < BATCH ? all - i : BATCH;
        if (narrow)
            decode_entries(r, &f, 2 * i, count, 1);
        else
            decode_entries(r, &f, 2 * i, count, 0);
        if (f.starved || (status = place(&r->s, &c, r->gaps, r->values, count))) return DCZ_DAMAGED;
        i += count;
    }
    if (c.zeros != fillers || !c.last) return DCZ_DAMAGED;
    if ((status = close_rans(r, &f))) return status;
    close_sink(&r->s);
    return DCZ_OK;
}

static inline void store(uint8_t *out, uint64_t at, uint32_t symbol, const int wide) {
    if (wide) {
        out[2 * at] = (uint8_t)symbol;
        out[2 * at + 1] = (uint8_t)(symbol >> 8);
    } else {
        out[at] = (uint8_t)symbol;
    }
}

/* Decode count symbols, the first one number i, to out. A symbol's table is class and what classes,
 * where there are any, add. */
static inline void decode_run(rans_state *r, feed *f, uint64_t i, const uint8_t *restrict classes,
                              uint32_t class, uint64_t count, uint8_t *restrict out,
                              const int narrow, const int wide) {
    const void *restrict tables = r->slots;
    uint32_t *restrict states = r->states;
    const uint32_t mask = f->mask;
    uint64_t k = 0;
    while (k < count) {
        const uint64_t sure = k + plenty(f, count - k);
        if (sure == k) break;
        const uint8_t *words = f->words;
        for (; k < sure; k++) {
            uint32_t x = states[(i + k) & mask];
            store(out, k, pop(&x, tables, classes ? class + classes[k] : class, narrow), wide);
            states[(i + k) & mask] = refilled(x, &words);
        }
        f->words = words;
    }
    for (; k < count; k++) {
        uint32_t *x = &states[(i + k) & mask];
        store(out, k, pop(x, tables, classes ? class + classes[k] : class, narrow), wide);
        *x = fed(*x, f);
    }
}

/* Do so in the way that suits: the usual cases have loops of their own. */
static void decode_some(rans_state *r, feed *f, uint64_t i, const uint8_t *classes, uint32_t class,
                        uint64_t count, uint8_t *out, int narrow, int wide) {
    if (narrow && !wide && !classes)
        decode_run(r, f, i, 0, class, count, out, 1, 0);
    else if (narrow && !wide)
        decode_run(r, f, i, classes, class, count, out, 1, 0);
    else
        decode_run(r, f, i, classes, class, count, out, narrow, wide);
}

int dcz_decode_dense(const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                     const uint8_t *stream, uint64_t size, const uint8_t *row_class, uint64_t rows,
                     const uint8_t *column_class, uint64_t columns, uint64_t first,
                     dcz_target *target, void *workspace, size_t workspace_size) {
    rans_state *r = workspace;
    feed f;
    int status;
    if (!usable(target) || alphabet > target->entries) return DCZ_MISUSE;
    if (!tables || tables > MAX_TABLES || !holds(workspace_size, tables)) return DCZ_MISUSE;
    if (!columns || rows > UINT64_MAX / columns || first > rows * columns) return DCZ_MISUSE;
    if (target->n > rows * columns - first) return DCZ_MISUSE;
    const int narrow = alphabet <= 256, wide = target->index_bytes == 2;
    uint32_t top = 0;
    for (uint64_t c = 0; c < columns; c++) top = column_class[c] > top ? column_class[c] : top;
    if ((status = open_rans(r, frequencies, tables, alphabet, stream, size, &f))) return status;
    open_sink(&r->s, target);
    uint64_t row = first / columns, c = first % columns;
    for (uint64_t i = 0; i < target->n;) {
        reach(&r->s, i);
        const uint64_t start = i;
        while (i < r->s.stop) {
            uint64_t count = r->s.stop - i;
            const uint8_t *classes = 0;
            uint32_t class = 0;
            if (tables > 1) {
                class = row_class[row];
                classes = column_class + c;
                if (class >= tables || class + top >= tables) return DCZ_MISUSE;
                if (count > columns - c) count = columns - c;
                c += count;
                if (c == columns) {
                    c = 0;
                    row++;
                }
            }
            uint8_t *out = r->s.block + (wide ? 2 : 1) * (i - start);
            decode_some(r, &f, i, classes, class, count, out, narrow, wide);
            i += count;
        }
        if (f.starved) return DCZ_DAMAGED;
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
    uint32_t *spread = workspace; /* a frequency, and above it the sum of those before */
    uint64_t place = capacity;
    if (lanes > MAX_LANES || !alphabet || workspace_size / 4 / alphabet < tables) return DCZ_MISUSE;
    const uint32_t mask = (1u << lanes) - 1;
    for (uint64_t t = 0; t < tables; t++) {
        uint32_t start = 0;
        for (uint64_t s = 0; s < alphabet; s++) {
            const uint32_t many = frequencies[t * alphabet + s];
            if (many > TOTAL - start) return DCZ_MISUSE;
            spread[t * alphabet + s] = many | start << 16;
            start += many;
        }
    }
    for (uint32_t lane = 0; lane <= mask; lane++) states[lane] = LOW;
    for (uint64_t i = count; i-- > 0;) {
        const uint64_t table = contexts ? contexts[i] : 0;
        if (table >= tables || symbols[i] >= alphabet) return DCZ_MISUSE;
        const uint32_t both = spread[table * alphabet + symbols[i]], frequency = both & 0xFFFF;
        uint32_t x = states[i & mask];
        if (!frequency) return DCZ_MISUSE;
        if (!place) return DCZ_NO_ROOM;
        /* Without a branch: which state is full cannot be predicted. */
        const uint32_t full = x >> (32 - PRECISION) >= frequency;
        out[place - 1] = (uint16_t)x;
        place -= full;
        x >>= full << 4;
        const uint32_t quotient = x / frequency;
        states[i & mask] = (quotient << PRECISION) + (x - quotient * frequency) + (both >> 16);
    }
    *used = capacity - place;
    return DCZ_OK;
}
