/* What an encoder counts and collects; docs/format.md, "Entries" and "Classes".
 *
 * Plain buffers in, plain buffers out: no allocation, no input or output, no global state. Symbols
 * are little-endian numbers of item bytes, 1, 2 or 4. */
#ifndef DCZ_ENTRIES_H
#define DCZ_ENTRIES_H

#include <stddef.h>
#include <stdint.h>

/* Add to runs how often each run of up to bins - 1 zeros stands before a symbol that is not zero, and
 * to counts how often each symbol occurs, where counts is not null. Longer runs, of which there are
 * up to n / bins, are listed. */
int dcz_count_runs(const uint8_t *symbols, uint32_t item, uint64_t n, uint64_t *runs, uint64_t bins,
                   uint64_t *longer, uint64_t capacity, uint64_t *listed, uint64_t *counts,
                   uint64_t alphabet);

/* Write gap, value, gap, value, ...; *kept and *entries say how many. */
int dcz_list_entries(const uint8_t *symbols, uint32_t item, uint64_t n, uint32_t width,
                     uint32_t *out, uint64_t capacity, uint64_t *kept, uint64_t *entries);

/* Add to counts, tables x alphabet, how often each symbol of a matrix occurs in each table, which is
 * row_class + column_class. */
int dcz_count_tables(const uint8_t *symbols, uint32_t item, const uint8_t *row_class, uint64_t rows,
                     const uint8_t *column_class, uint64_t columns, uint64_t *counts,
                     uint64_t tables, uint64_t alphabet);

#endif
