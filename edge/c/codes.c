/* docs/format.md, "Code tables" and "Bit streams". */
#include "inside.h"

size_t dcz_code_room(uint32_t alphabet) { return 5 * (size_t)alphabet + 16; }

/* The least number of bits that v values take. */
static uint32_t width_of(uint32_t v) {
    uint32_t bits = 0;
    while ((v - 1) >> bits) bits++;
    return bits;
}

static void read_lengths(source *s, uint32_t v, uint8_t *lengths) {
    bits b = {s->at, dcz_left(s), 0};
    int32_t previous = (int32_t)width_of(v);
    uint32_t symbol = 0, last = v;
    while (symbol < v) {
        const uint32_t number = dcz_gamma(&b, 0);
        if (number == 4) {
            const uint32_t absent = dcz_gamma(&b, 0);
            if (!absent || absent >= v - symbol) s->wrong = 1; /* the last has a codeword */
            symbol += absent;
        } else {
            previous += dcz_step(number);
            if (!number || previous < 1 || previous > LONGEST) s->wrong = 1;
            last = symbol;
            if (!s->wrong) lengths[symbol++] = (uint8_t)previous;
        }
        if (s->wrong) return;
    }
    if (last != v - 1) s->wrong = 1;
    dcz_bits_close(&b, s);
}

/* Codewords from lengths, 0 for none; whether they are complete. */
static int assign(code *c, const uint8_t *lengths, uint32_t v) {
    uint32_t counts[LONGEST + 1] = {0}, filled = 0, used = 0;
    for (uint32_t s = 0; s < v; s++) counts[lengths[s]]++;
    counts[0] = 0;
    for (uint32_t length = 0; length <= LONGEST; length++) {
        c->rank[length] = used;
        used += counts[length];
        if (counts[length] > ((1u << LONGEST) - filled) >> (LONGEST - length)) return 0;
        filled += counts[length] << (LONGEST - length);
        c->limit[length] = filled;
        counts[length] = c->rank[length];
    }
    for (uint32_t s = 0; s < v; s++)
        if (lengths[s]) c->symbols[counts[lengths[s]]++] = s;
    return filled == 1u << LONGEST;
}

int dcz_read_code(source *s, uint32_t alphabet, code *c, arena *a) {
    const uint32_t head = (uint32_t)dcz_count(s, 4 * MOST_SYMBOLS + 3), v = head >> 2;
    const uint32_t kind = head & 3;
    if (s->wrong || kind == 3 || v > alphabet - (kind == 2) || (kind != 2 && v < 2)) return DCZ_DAMAGED;
    c->symbols = dcz_cut(a, 4 * (kind == 2 ? 1 : v));
    if (!c->symbols) return DCZ_NO_ROOM;
    memset(c->limit, 0, sizeof c->limit);
    memset(c->rank, 0, sizeof c->rank);
    if (kind == 2) {
        c->limit[0] = 1u << LONGEST;
        c->symbols[0] = v;
        return DCZ_OK;
    }
    const size_t before = a->used;
    uint8_t *lengths = dcz_cut(a, v);
    if (!lengths) return DCZ_NO_ROOM;
    memset(lengths, 0, v);
    if (kind == 1) {
        read_lengths(s, v, lengths);
    } else {
        const uint32_t longest = width_of(v);
        const uint32_t shorter = (1u << longest) - v;
        for (uint32_t i = 0; i < v; i++) lengths[i] = (uint8_t)(longest - (i < shorter));
    }
    a->used = before;
    return !s->wrong && assign(c, lengths, v) ? DCZ_OK : DCZ_DAMAGED;
}

uint32_t dcz_symbol(const code *c, bits *b) {
    const uint32_t window = dcz_peek(b);
    uint32_t length = 0;
    while (window >= c->limit[length]) length++; /* the last limit is past every window */
    const uint32_t first = length ? c->limit[length - 1] : 0;
    b->position += length;
    return c->symbols[c->rank[length] + ((window - first) >> (LONGEST - length))];
}
