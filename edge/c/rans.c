/* docs/format.md, "Frequency tables" and "rANS streams". */
#include "inside.h"

enum { PRECISION = 14, TOTAL = 1 << PRECISION, LOW = 1 << 16, START = (1 << 15) - 1, EACH = 64 };

static const uint32_t M[8] = {2147483648u, 1969251188u, 1805811301u, 1655936265u,
                              1518500250u, 1392470869u, 1276901417u, 1170923762u};

size_t dcz_frequencies_room(uint32_t alphabet) {
    return 2 * (TOTAL / EACH) + 4 * ((size_t)alphabet + 1) + 8;
}

/* How many symbols share a level with this one, which is the first of them. */
static uint32_t bucket(uint32_t symbol) {
    uint32_t bits = 0;
    if (symbol < 8) return 1;
    while (symbol >> bits) bits++;
    return 1u << (bits - 3);
}

/* The weights of v symbols, 0 for absent ones. */
static void read_weights(source *s, uint32_t v, int in_buckets, uint32_t *weights) {
    bits b = {s->at, dcz_left(s), 0};
    const uint32_t octave = dcz_number(&b, 2), order = dcz_number(&b, 2);
    int32_t level = 16 << octave;
    uint32_t symbol = 0, absent = 0;
    int started = 0, last = 0;
    while (symbol < v) {
        if (!absent) {
            const uint32_t number = dcz_gamma(&b, order);
            if (number == 4) {
                absent = dcz_gamma(&b, 0);
                if (!absent) s->wrong = 1;
            } else {
                level += dcz_step(number);
                if (!number || (!started && number != 1)) s->wrong = 1;
                if (level < 0 || level >= 31 << octave) s->wrong = 1;
                started = 1;
            }
            if (s->wrong) return;
        }
        uint32_t many = in_buckets ? bucket(symbol) : 1;
        if (many > v - symbol) many = v - symbol;
        const uint32_t step = (uint32_t)level & ((1u << octave) - 1);
        const uint32_t weight = absent ? 0 : M[step << (3 - octave)] >> (level >> octave);
        while (many--) weights[symbol++] = weight;
        last = !absent;
        absent -= absent > 0;
    }
    if (!last || absent) s->wrong = 1;
    dcz_bits_close(&b, s);
}

/* Weights to entries, in their place; how many. */
static uint32_t share(uint32_t *entries, uint32_t v) {
    uint64_t whole = 0, before = 0;
    uint32_t present = 0, used = 0, start = 0;
    for (uint32_t s = 0; s < v; s++) {
        present += entries[s] > 0;
        whole += entries[s];
    }
    if (present > TOTAL) return 0;
    for (uint32_t s = 0; s < v; s++) {
        const uint32_t weight = entries[s];
        if (!weight) continue;
        entries[used] = s << 15 | start;
        before += weight;
        start = ++used + (uint32_t)((TOTAL - present) * before / whole);
    }
    return used;
}

int dcz_read_frequencies(source *s, uint32_t alphabet, frequencies *f, arena *a) {
    const uint32_t top = (uint32_t)dcz_count(s, 4 * MOST_SYMBOLS + 3), v = top >> 2;
    const uint32_t kind = top & 3;
    uint32_t used = 1;
    if (s->wrong || v > alphabet - (kind == 2) || (kind != 2 && v < 2)) return DCZ_DAMAGED;
    f->first = dcz_cut(a, 2 * (TOTAL / EACH));
    f->entries = dcz_cut(a, 4 * ((kind == 2 ? 1 : v) + 1));
    if (!f->first || !f->entries) return DCZ_NO_ROOM;
    if (kind == 2) {
        f->entries[0] = v << 15;
    } else {
        for (uint32_t i = 0; i < v; i++) f->entries[i] = M[0];
        if (kind) read_weights(s, v, kind == 3, f->entries);
        if (s->wrong) return DCZ_DAMAGED;
        used = share(f->entries, v);
        if (!used) return DCZ_DAMAGED;
    }
    f->entries[used] = TOTAL;
    for (uint32_t i = 0, entry = 0; i < TOTAL / EACH; i++) {
        while ((f->entries[entry + 1] & START) <= i * EACH) entry++;
        f->first[i] = (uint16_t)entry;
    }
    return DCZ_OK;
}

size_t dcz_rans_room(size_t payload) { return payload < 1 << 14 ? payload : 1 << 14; }

int dcz_open_rans(rans *r, dcz_part stream, size_t symbols, arena *a) {
    source s = dcz_source(stream.at, stream.size);
    const uint32_t lanes = dcz_byte(&s);
    if (s.wrong || lanes > 12 || (lanes < 12 && symbols > (size_t)32768 << lanes)) return DCZ_DAMAGED;
    const size_t states = (size_t)4 << lanes;
    const uint8_t *at = dcz_take(&s, states);
    if (!at || dcz_left(&s) % 2) return DCZ_DAMAGED;
    if (!(r->states = dcz_cut(a, states))) return DCZ_NO_ROOM;
    r->mask = (1u << lanes) - 1;
    source each = dcz_source(at, states);
    for (uint32_t lane = 0; lane <= r->mask; lane++)
        if ((r->states[lane] = dcz_u32(&each)) < LOW) return DCZ_DAMAGED;
    r->words = s.at;
    r->end = s.end;
    r->starved = 0;
    return DCZ_OK;
}

uint32_t dcz_pop(rans *r, size_t i, const frequencies *f) {
    uint32_t *state = &r->states[i & r->mask];
    const uint32_t slot = *state & (TOTAL - 1);
    const uint32_t *entry = f->entries + f->first[slot / EACH];
    while ((entry[1] & START) <= slot) entry++;
    const uint32_t start = *entry & START;
    uint32_t x = ((entry[1] & START) - start) * (*state >> PRECISION) + slot - start;
    if (x < LOW) {
        if (r->words == r->end) {
            r->starved = 1;
            x = LOW;
        } else {
            x = x << 16 | r->words[0] | (uint32_t)r->words[1] << 8;
            r->words += 2;
        }
    }
    *state = x;
    return *entry >> 15;
}

int dcz_close_rans(const rans *r) {
    if (r->starved || r->words != r->end) return DCZ_DAMAGED;
    for (uint32_t lane = 0; lane <= r->mask; lane++)
        if (r->states[lane] != LOW) return DCZ_DAMAGED;
    return DCZ_OK;
}
