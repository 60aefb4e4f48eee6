/* Raw deflate streams (RFC 1951), of which a file has two at most: the directory and the graph. */
#include "inside.h"

enum { LENGTHS = 286, DISTANCES = 30, BITS = 15, NONE = 0xFFFF };

/* Bits, each byte's least significant first. */
typedef struct {
    const uint8_t *at, *end;
    uint32_t window, held;
    int wrong;
} stream;

/* How many codewords of each length there are, and the symbols in their order. */
typedef struct {
    uint16_t counts[BITS + 1], symbols[LENGTHS + 2];
} huffman;

typedef struct {
    uint8_t *out;
    size_t at, size;
} window;

static uint32_t take(stream *s, uint32_t count) {
    while (s->held < count) {
        if (s->at == s->end) {
            s->wrong = 1;
            return 0;
        }
        s->window |= (uint32_t)*s->at++ << s->held;
        s->held += 8;
    }
    const uint32_t found = s->window & ((1u << count) - 1);
    s->window >>= count;
    s->held -= count;
    return found;
}

/* Codewords of these lengths; whether they are complete, or one alone of one bit where that may be,
 * or none. */
static int assign(huffman *h, const uint8_t *lengths, uint32_t count, int may_be_one) {
    uint32_t next[BITS + 2] = {0}, used = 0, longest = 0;
    int32_t left = 1;
    memset(h->counts, 0, sizeof h->counts);
    for (uint32_t i = 0; i < count; i++) h->counts[lengths[i]]++;
    h->counts[0] = 0;
    for (uint32_t length = 1; length <= BITS; length++) {
        left = 2 * left - h->counts[length];
        if (left < 0) return 0;
        next[length] = used;
        used += h->counts[length];
        if (h->counts[length]) longest = length;
    }
    for (uint32_t i = 0; i < count; i++)
        if (lengths[i]) h->symbols[next[lengths[i]]++] = (uint16_t)i;
    return !left || (may_be_one && longest <= 1);
}

static uint32_t symbol(const huffman *h, stream *s) {
    uint32_t word = 0, first = 0, rank = 0;
    for (uint32_t length = 1; length <= BITS && !s->wrong; length++) {
        word |= take(s, 1);
        const uint32_t count = h->counts[length];
        if (word - first < count) return h->symbols[rank + word - first];
        rank += count;
        first = (first + count) << 1;
        word <<= 1;
    }
    s->wrong = 1;
    return NONE;
}

static void put(stream *s, window *w, uint8_t byte) {
    if (w->at == w->size)
        s->wrong = 1;
    else
        w->out[w->at++] = byte;
}

static void copy_stored(stream *s, window *w) {
    s->window = s->held = 0; /* less than a byte is held */
    const uint32_t size = take(s, 16), inverted = take(s, 16);
    if (s->wrong || (size ^ inverted) != 0xFFFF) s->wrong = 1;
    for (uint32_t i = 0; i < size && !s->wrong; i++) put(s, w, (uint8_t)take(s, 8));
}

/* What a length or a distance symbol stands for: groups of symbols have one bit more than those
 * before them. */
static uint32_t spread(stream *s, uint32_t symbol, uint32_t group) {
    if (symbol < 2 * group) return symbol;
    const uint32_t extra = symbol / group - 1;
    return ((group + symbol % group) << extra) + take(s, extra);
}

static void inflate_block(stream *s, window *w, const huffman *literals, const huffman *distances) {
    while (!s->wrong) {
        const uint32_t found = symbol(literals, s);
        if (found < 256) {
            put(s, w, (uint8_t)found);
            continue;
        }
        if (found == 256 || s->wrong) return;
        if (found >= LENGTHS) break;
        uint32_t length = found == LENGTHS - 1 ? 258 : 3 + spread(s, found - 257, 4);
        const uint32_t code = symbol(distances, s);
        if (code >= DISTANCES) break;
        const uint32_t distance = 1 + spread(s, code, 2);
        if (distance > w->at) break;
        while (length-- && !s->wrong) put(s, w, w->out[w->at - distance]);
    }
    s->wrong = 1;
}

/* Read the lengths of both codes, which are coded themselves; whether they are codes. */
static int read_codes(stream *s, huffman *literals, huffman *distances) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[LENGTHS + DISTANCES + 138] = {0};
    const uint32_t many = 257 + take(s, 5), few = 1 + take(s, 5), coded = 4 + take(s, 4);
    if (many > LENGTHS || few > DISTANCES) return 0;
    for (uint32_t i = 0; i < coded; i++) lengths[order[i]] = (uint8_t)take(s, 3);
    if (!assign(literals, lengths, 19, 0)) return 0;
    for (uint32_t i = 0; i < many + few && !s->wrong;) {
        const uint32_t found = symbol(literals, s);
        uint32_t repeat = 1, length = found;
        if (found > 15) {
            repeat = found == 16 ? 3 + take(s, 2) : found == 17 ? 3 + take(s, 3) : 11 + take(s, 7);
            length = 0;
            if (found == 16 && !i) return 0;
            if (found == 16) length = lengths[i - 1];
        }
        if (s->wrong || repeat > many + few - i) return 0;
        while (repeat--) lengths[i++] = (uint8_t)length;
    }
    if (s->wrong || !lengths[256]) return 0; /* a block must end */
    return assign(literals, lengths, many, 1) && assign(distances, lengths + many, few, 1);
}

static void fixed_codes(huffman *literals, huffman *distances) {
    uint8_t lengths[LENGTHS + 2];
    for (uint32_t i = 0; i < LENGTHS + 2; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    assign(literals, lengths, LENGTHS + 2, 0);
    memset(lengths, 5, DISTANCES + 2);
    assign(distances, lengths, DISTANCES + 2, 0);
}

int dcz_inflate(dcz_part data, uint8_t *out, size_t size) {
    stream s = {data.at, data.at + data.size, 0, 0, 0};
    window w = {out, 0, size};
    huffman literals, distances;
    for (uint32_t last = 0; !last && !s.wrong;) {
        last = take(&s, 1);
        const uint32_t kind = take(&s, 2);
        if (kind == 0) {
            copy_stored(&s, &w);
        } else if (kind == 1) {
            fixed_codes(&literals, &distances);
            inflate_block(&s, &w, &literals, &distances);
        } else if (kind == 2 && read_codes(&s, &literals, &distances)) {
            inflate_block(&s, &w, &literals, &distances);
        } else {
            s.wrong = 1;
        }
    }
    return s.wrong || w.at != size || s.at != s.end ? DCZ_DAMAGED : DCZ_OK;
}
