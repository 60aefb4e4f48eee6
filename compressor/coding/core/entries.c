#include "entries.h"

#include <string.h>

#include "context.h"

static inline uint32_t at(const uint8_t *symbols, uint32_t item, uint64_t i) {
    const uint8_t *s = symbols + i * item;
    if (item == 1) return s[0];
    if (item == 2) return s[0] | (uint32_t)s[1] << 8;
    return s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 | (uint32_t)s[3] << 24;
}

/* The first symbol from i on that is not zero, or n. */
static inline uint64_t next_used(const uint8_t *symbols, uint32_t item, uint64_t i, uint64_t n) {
    const uint64_t eight = 8 / item;
    for (; i < n; i++) {
        if (at(symbols, item, i)) return i;
        for (uint64_t word; n - i > eight; i += eight) {
            memcpy(&word, symbols + (i + 1) * item, 8);
            if (word) break;
        }
    }
    return n;
}

static int known(uint32_t item) { return item == 1 || item == 2 || item == 4; }

static int count_symbols(const uint8_t *symbols, uint32_t item, uint64_t n, uint64_t *counts,
                         uint64_t alphabet) {
    uint64_t four[4][256] = {{0}}; /* one after the other would wait for the same number */
    if (item > 1) {
        for (uint64_t i = 0; i < n; i++) {
            const uint32_t symbol = at(symbols, item, i);
            if (symbol >= alphabet) return DCZ_MISUSE;
            counts[symbol]++;
        }
        return DCZ_OK;
    }
    for (uint64_t i = 0; i < n; i++) four[i & 3][symbols[i]]++;
    for (uint64_t s = 0; s < 256; s++) {
        const uint64_t found = four[0][s] + four[1][s] + four[2][s] + four[3][s];
        if (!found) continue;
        if (s >= alphabet) return DCZ_MISUSE;
        counts[s] += found;
    }
    return DCZ_OK;
}

static inline int count_runs(const uint8_t *symbols, const uint32_t item, uint64_t n,
                             uint64_t *restrict runs, uint64_t bins, uint64_t *restrict longer,
                             uint64_t capacity, uint64_t *listed, uint64_t *restrict counts,
                             uint64_t alphabet) {
    uint64_t many = 0;
    for (uint64_t i = 0, end = 0; (i = next_used(symbols, item, i, n)) < n;) {
        if (i - end >= bins) {
            if (many >= capacity) return DCZ_NO_ROOM;
            longer[many++] = i - end;
            end = ++i;
            continue;
        }
        /* A few at once and without branches: which of them are zero cannot be predicted. */
        const uint64_t room = bins - (i - end), few = room < 8 ? room : 8;
        for (const uint64_t stop = n - i < few ? n : i + few; i < stop; i++) {
            const uint64_t used = at(symbols, item, i) != 0;
            runs[i - end] += used;
            end = used ? i + 1 : end;
        }
    }
    *listed = many;
    return counts ? count_symbols(symbols, item, n, counts, alphabet) : DCZ_OK;
}

int dcz_count_runs(const uint8_t *symbols, uint32_t item, uint64_t n, uint64_t *runs, uint64_t bins,
                   uint64_t *longer, uint64_t capacity, uint64_t *listed, uint64_t *counts,
                   uint64_t alphabet) {
    if (!known(item) || (counts && !alphabet)) return DCZ_MISUSE;
    if (item == 1)
        return count_runs(symbols, 1, n, runs, bins, longer, capacity, listed, counts, alphabet);
    if (item == 2)
        return count_runs(symbols, 2, n, runs, bins, longer, capacity, listed, counts, alphabet);
    return count_runs(symbols, 4, n, runs, bins, longer, capacity, listed, counts, alphabet);
}

static inline int list_entries(const uint8_t *symbols, const uint32_t item, uint64_t n,
                               uint32_t width, uint32_t *restrict out, uint64_t capacity,
                               uint64_t *kept, uint64_t *entries) {
    const uint64_t top = ((uint64_t)1 << width) - 1;
    uint64_t used = 0, found = 0;
    for (uint64_t i = 0, end = 0; (i = next_used(symbols, item, i, n)) < n; end = ++i, found++) {
        const uint64_t run = i - end, more = (run >> width) + 1;
        if (more > capacity - used) return DCZ_NO_ROOM;
        for (uint64_t filler = 1; filler < more; filler++, used++) {
            out[2 * used] = (uint32_t)top;
            out[2 * used + 1] = 0;
        }
        out[2 * used] = (uint32_t)(run & top);
        out[2 * used + 1] = at(symbols, item, i);
        used++;
    }
    *kept = found;
    *entries = used;
    return DCZ_OK;
}

int dcz_list_entries(const uint8_t *symbols, uint32_t item, uint64_t n, uint32_t width,
                     uint32_t *out, uint64_t capacity, uint64_t *kept, uint64_t *entries) {
    if (!known(item) || width > 12) return DCZ_MISUSE;
    if (item == 1) return list_entries(symbols, 1, n, width, out, capacity, kept, entries);
    if (item == 2) return list_entries(symbols, 2, n, width, out, capacity, kept, entries);
    return list_entries(symbols, 4, n, width, out, capacity, kept, entries);
}

int dcz_count_tables(const uint8_t *symbols, uint32_t item, const uint8_t *row_class, uint64_t rows,
                     const uint8_t *column_class, uint64_t columns, uint64_t *counts,
                     uint64_t tables, uint64_t alphabet) {
    uint32_t top = 0;
    if (!known(item)) return DCZ_MISUSE;
    for (uint64_t c = 0; c < columns; c++) top = column_class[c] > top ? column_class[c] : top;
    for (uint64_t r = 0; r < rows; r++) {
        if (row_class[r] >= tables || row_class[r] + top >= tables) return DCZ_MISUSE;
        uint64_t *row = counts + row_class[r] * alphabet;
        for (uint64_t c = 0; c < columns; c++) {
            const uint32_t symbol = at(symbols, item, r * columns + c);
            if (symbol >= alphabet) return DCZ_MISUSE;
            row[column_class[c] * alphabet + symbol]++;
        }
    }
    return DCZ_OK;
}
