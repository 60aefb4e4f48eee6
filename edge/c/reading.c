/* docs/format.md, "Conventions": numbers, texts, strings of bits, checksums; and working memory. */
#include "inside.h"

source dcz_source(const uint8_t *at, size_t size) {
    const source s = {at, at + size, 0};
    return s;
}

const uint8_t *dcz_take(source *s, size_t size) {
    const uint8_t *at = s->at;
    if (size > dcz_left(s)) {
        s->wrong = 1;
        s->at = s->end;
        return 0;
    }
    s->at += size;
    return at;
}

uint32_t dcz_byte(source *s) {
    const uint8_t *at = dcz_take(s, 1);
    return at ? *at : 0;
}

uint32_t dcz_u32(source *s) {
    const uint8_t *at = dcz_take(s, 4);
    return at ? dcz_little(at) : 0;
}

uint64_t dcz_varint(source *s) {
    uint64_t value = 0;
    uint32_t byte = 128;
    for (uint32_t shift = 0; byte & 128; shift += 7) {
        byte = dcz_byte(s);
        if (shift == 63 && byte > 1) s->wrong = 1; /* 2^64 or more */
        if (shift && !byte) s->wrong = 1;          /* a zero too many */
        if (s->wrong) return 0;
        value |= (uint64_t)(byte & 127) << shift;
    }
    return value;
}

size_t dcz_count(source *s, size_t most) {
    const uint64_t found = dcz_varint(s);
    if (found <= most) return (size_t)found;
    s->wrong = 1;
    return 0;
}

/* Bytes of the character that begins here, 0 where none does: nothing overlong, no surrogates. */
static uint32_t character(const uint8_t *at, size_t left) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint32_t first = at[0];
    const uint32_t size = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3
                          : first >> 3 == 30 ? 4 : 0;
    uint32_t value = size > 1 ? first & (0x7Fu >> size) : first;
    if (!size || size > left) return 0;
    for (uint32_t i = 1; i < size; i++) {
        if (at[i] >> 6 != 2) return 0;
        value = value << 6 | (at[i] & 63);
    }
    return value < least[size] || value > 0x10FFFF || value >> 11 == 27 ? 0 : size;
}

dcz_part dcz_text_part(source *s) {
    const size_t size = dcz_count(s, dcz_left(s));
    const uint8_t *at = dcz_take(s, size);
    const dcz_part found = {at, at ? size : 0};
    for (size_t i = 0, step = 1; i < found.size && step; i += step) {
        step = character(found.at + i, found.size - i);
        if (!step) s->wrong = 1;
    }
    return found;
}

uint32_t dcz_peek(const bits *b) {
    const size_t byte = b->position >> 3;
    uint32_t window = 0;
    for (size_t i = byte; i < byte + 4; i++) window = window << 8 | (i < b->size ? b->at[i] : 0);
    return window << (b->position & 7) >> (32 - LONGEST);
}

uint32_t dcz_bit(bits *b) {
    const uint32_t found = dcz_peek(b) >> (LONGEST - 1);
    b->position++;
    return found;
}

uint32_t dcz_number(bits *b, uint32_t width) {
    uint32_t value = 0;
    for (uint32_t some; width; width -= some) {
        some = width < LONGEST ? width : LONGEST;
        value = value << some | dcz_peek(b) >> (LONGEST - some);
        b->position += some;
    }
    return value;
}

uint32_t dcz_gamma(bits *b, uint32_t order) {
    uint32_t zeros = 0;
    while (!dcz_bit(b))
        if (++zeros + order > 30) return 0;
    const uint32_t first = (1u << zeros) + dcz_number(b, zeros);
    const uint32_t found = 1 + ((first - 1) << order) + dcz_number(b, order);
    return b->position > 8 * b->size ? 0 : found;
}

int32_t dcz_step(uint32_t number) {
    const int32_t half = (int32_t)(number / 2);
    if (number < 4) return number == 2 ? 1 : number == 3 ? -1 : 0;
    return number & 1 ? half : 1 - half;
}

int dcz_bits_end(const bits *b) {
    const size_t rest = -b->position & 7;
    if ((b->position + 7) / 8 != b->size) return 0;
    return !rest || !(b->at[b->size - 1] & ((1u << rest) - 1));
}

void dcz_bits_close(bits *b, source *s) {
    b->size = (b->position + 7) / 8;
    if (!dcz_take(s, b->size) || !dcz_bits_end(b)) s->wrong = 1;
}

void *dcz_cut(arena *a, size_t size) {
    const size_t left = a->size - a->used, whole = (size + 7) / 8 * 8;
    if (size > left || whole > left) return 0;
    void *found = a->at + a->used;
    a->used += whole;
    return found;
}

static void sink_down(uint32_t *items, size_t at, size_t count,
                      int (*before)(const void *, uint32_t, uint32_t), const void *what) {
    const uint32_t item = items[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(what, items[child], items[child + 1])) child++;
        if (!before(what, item, items[child])) break;
        items[at] = items[child];
    }
    items[at] = item;
}

/* Heapsort: in place, and never slow. */
void dcz_sort(uint32_t *items, size_t count, int (*before)(const void *, uint32_t, uint32_t),
              const void *what) {
    for (size_t i = count / 2; i-- > 0;) sink_down(items, i, count, before, what);
    for (size_t last = count; last-- > 1;) {
        const uint32_t largest = items[0];
        items[0] = items[last];
        items[last] = largest;
        sink_down(items, 0, last, before, what);
    }
}

uint32_t dcz_crc_of(const uint32_t *table, const uint8_t *at, size_t size) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) crc = dcz_crc_step(table, crc, at[i]);
    return ~crc;
}
