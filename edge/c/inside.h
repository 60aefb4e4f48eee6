/* What the decoder's parts have of each other; not for callers. Every buffer has its size with it,
 * and every count is checked against one before it is used. */
#ifndef DCZ_INSIDE_H
#define DCZ_INSIDE_H

#include <string.h>

#include "dcz.h"

/* --- reading.c: bytes, and strings of bits, front to back --- */

/* What is left to be read. wrong: it had less than was asked for, or not what it must. */
typedef struct {
    const uint8_t *at, *end;
    int wrong;
} source;

source dcz_source(const uint8_t *at, size_t size);
const uint8_t *dcz_take(source *s, size_t size); /* null where there is less */
uint32_t dcz_byte(source *s);
uint32_t dcz_u32(source *s);
uint64_t dcz_varint(source *s);
size_t dcz_count(source *s, size_t most); /* a varint up to this */
dcz_part dcz_text_part(source *s); /* UTF-8 */
static inline uint32_t dcz_little(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}
static inline size_t dcz_left(const source *s) { return (size_t)(s->end - s->at); }

/* Bits, each byte's most significant first; zeros follow the last byte. */
typedef struct {
    const uint8_t *at;
    size_t size, position; /* bytes, bits */
} bits;

uint32_t dcz_peek(const bits *b); /* the next 17 */
uint32_t dcz_bit(bits *b);
uint32_t dcz_number(bits *b, uint32_t width);
uint32_t dcz_gamma(bits *b, uint32_t order); /* 0 where there is none below 2^31 */
int32_t dcz_step(uint32_t number);           /* what such a number adds to a length or level */
int dcz_bits_end(const bits *b);             /* whether they end here, but for zeros */
void dcz_bits_close(bits *b, source *s);     /* go on in the source after their last byte */

/* --- memory --- */

/* Working memory, of which parts are taken. Without any, only counted. */
typedef struct {
    uint8_t *at;
    size_t used, size;
} arena;

void *dcz_cut(arena *a, size_t size); /* null where there is no room */

/* Sort by what comes before what. */
void dcz_sort(uint32_t *items, size_t count, int (*before)(const void *, uint32_t, uint32_t),
              const void *what);

static inline uint32_t dcz_crc_step(const uint32_t *table, uint32_t crc, uint32_t byte) {
    return crc >> 8 ^ table[(crc ^ byte) & 255];
}
/* Whether checksums match. Fuzzing takes them as true, so that it reaches what is behind. */
static inline int dcz_same(uint32_t crc, uint32_t other) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)crc, (void)other;
    return 1;
#else
    return crc == other;
#endif
}
uint32_t dcz_crc_of(const uint32_t *table, const uint8_t *at, size_t size);

/* --- codes.c: code tables and the symbols of their streams --- */

enum { LONGEST = 17, MOST_SYMBOLS = (1 << 16) + 1 };

typedef struct {
    uint32_t limit[LONGEST + 1]; /* first codeword that is longer, left-aligned in LONGEST bits */
    uint32_t rank[LONGEST + 1];  /* codewords that are shorter */
    uint32_t *symbols;           /* in the order of their codewords */
} code;

size_t dcz_code_room(uint32_t alphabet);
int dcz_read_code(source *s, uint32_t alphabet, code *c, arena *a);
uint32_t dcz_symbol(const code *c, bits *b);

/* --- rans.c: frequency tables and the symbols of their streams --- */

typedef struct {
    uint16_t *first;   /* the entry with which each 64 slots begin */
    uint32_t *entries; /* symbol << 15 | first slot, and one past the last */
} frequencies;

typedef struct {
    uint32_t *states;
    uint32_t mask;
    const uint8_t *words, *end;
    int starved;
} rans;

size_t dcz_frequencies_room(uint32_t alphabet);
int dcz_read_frequencies(source *s, uint32_t alphabet, frequencies *f, arena *a);
size_t dcz_rans_room(size_t payload);
int dcz_open_rans(rans *r, dcz_part stream, size_t symbols, arena *a);
uint32_t dcz_pop(rans *r, size_t i, const frequencies *f);
int dcz_close_rans(const rans *r);

/* --- inflate.c --- */

/* Inflate exactly so many bytes from exactly these. */
int dcz_inflate(dcz_part data, uint8_t *out, size_t size);

/* --- weights.c: what the modes have in common --- */

/* Where decoded symbols go, one after the other: as they are, or as what a table has for them. */
typedef struct {
    uint8_t *out;
    const uint32_t *table;   /* null: as they are */
    uint32_t item, crc_item; /* bytes of what is written, of what has the checksum */
    size_t left;             /* elements that may still be written */
    const uint32_t *crc_table;
    uint32_t crc; /* UINT32_MAX at first, and inverted */
} sink;

/* There must be an element left. */
static inline void dcz_put(sink *k, uint32_t symbol) {
    for (uint32_t i = 0; i < k->crc_item; i++)
        k->crc = dcz_crc_step(k->crc_table, k->crc, symbol >> 8 * i & 255);
    const uint32_t value = k->table ? k->table[symbol] : symbol;
    if (k->item == 4) {
        memcpy(k->out, &value, 4);
    } else {
        const uint16_t narrow = (uint16_t)value;
        if (k->item == 2)
            memcpy(k->out, &narrow, 2);
        else
            *k->out = (uint8_t)value;
    }
    k->out += k->item;
    k->left--;
}

/* The head of a coded payload. */
typedef struct {
    uint32_t entries, width, half;
    uint32_t *table; /* bits of 0 and of the codebook's floats */
} head;

uint32_t dcz_widened(uint32_t half, int *wrong);
int dcz_read_head(source *s, int shared, head *h, arena *a);
int dcz_read_step(source *s, float *step);
uint32_t dcz_product(int32_t whole, float step, int *wrong);

/* A segment: its weights, entries of both kinds, and streams. */
typedef struct {
    size_t weights, kept, fillers;
    dcz_part streams;
} segment;

/* Segments of so many weights; counts are kept weights and fillers of all, null in modes without. */
typedef struct {
    source heads, bodies;
    size_t left, counts[2];
    int counted, several;
} segments;

int dcz_open_segments(segments *g, source *s, size_t elements, const size_t *counts);
int dcz_next_segment(segments *g, segment *found); /* 0 after the last */

/* --- gaps.c, dense.c, mixed.c: the modes; levels has room for as many as there are elements --- */

int dcz_gaps(const dcz_tensor *t, source *s, const head *h, sink *k, arena *a);
int dcz_dense_rans(const dcz_tensor *t, source *s, const head *h, sink *k, arena *a);
int dcz_mixed(const dcz_tensor *t, source *s, const head *h, sink *k, int32_t *levels, arena *a);

/* What they take at most, of a payload after its head; 0 where that is damaged. */
size_t dcz_dense_room(const dcz_tensor *t, source *s, uint32_t alphabet);
size_t dcz_mixed_room(const dcz_tensor *t, source *s, uint32_t entries, uint32_t negative);

#endif
