/* Huffman codes, rANS and gaps; docs/format.md, "Bit streams", "rANS streams" and "Entries".
 *
 * Plain buffers in, plain buffers out: no allocation, no input or output, no global state. */
#ifndef DCZ_STREAMS_H
#define DCZ_STREAMS_H

#include <stddef.h>
#include <stdint.h>

/* What context.h has, and DCZ_DAMAGED: no encoder wrote this. */
enum { DCZ_DAMAGED = 5 };

/* Where n decoded symbols go: as indices of index_bytes each (1 or 2; indices may be null), and as
 * floats, table[index] (both may be null). crc is the CRC-32 of the indices, little-endian. */
typedef struct {
    uint64_t n;
    uint8_t *indices;
    uint32_t index_bytes;
    uint64_t entries; /* indices there are: tables for more are refused */
    const float *table;
    float *floats;
    const uint32_t *crc_tables; /* of dcz_crc_tables */
    uint32_t crc;
} dcz_target;

/* A canonical code: the length of each symbol's codeword, -1 for none, and its bit stream. */
typedef struct {
    const int8_t *lengths;
    uint64_t symbols;
    const uint8_t *stream;
    uint64_t size;
} dcz_code;

/* Fill tables, 16 x 256 numbers. */
void dcz_crc_tables(uint32_t *tables);
uint32_t dcz_crc(const uint32_t *tables, uint32_t crc, const uint8_t *data, size_t size);

/* Bytes of scratch, aligned to 8: for dcz_decode_gaps, and for the rANS functions with this many
 * tables. */
size_t dcz_gaps_workspace(void);
size_t dcz_rans_workspace(uint64_t tables);

/* Entries of a GAP_SHARED payload. */
int dcz_decode_gaps(const dcz_code *gaps, const dcz_code *values, uint64_t kept, uint64_t fillers,
                    uint32_t width, dcz_target *target, void *workspace, size_t workspace_size);

/* Entries of a GAP_RANS payload: frequencies of 2 tables x alphabet. */
int dcz_decode_rans_gaps(const uint32_t *frequencies, uint64_t alphabet, const uint8_t *stream,
                         uint64_t size, uint64_t kept, uint64_t fillers, uint32_t width,
                         dcz_target *target, void *workspace, size_t workspace_size);

/* Indices of a DENSE_RANS payload, from weight first of a matrix on: the table of a weight is
 * row_class + column_class. */
int dcz_decode_dense(const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                     const uint8_t *stream, uint64_t size, const uint8_t *row_class, uint64_t rows,
                     const uint8_t *column_class, uint64_t columns, uint64_t first,
                     dcz_target *target, void *workspace, size_t workspace_size);

/* Append codewords from bit *bits of out on, whose bits from there on are 0; *bits grows. */
int dcz_encode_symbols(const uint32_t *codes, const uint8_t *lengths, uint64_t alphabet,
                       const uint32_t *symbols, uint64_t count, uint8_t *out, uint64_t capacity,
                       uint64_t *bits);

/* Write words from the end of out backwards; states has 2^lanes numbers, which come out as they are
 * written. *used says how many words. contexts may be null. */
int dcz_encode_rans(const uint32_t *frequencies, uint64_t tables, uint64_t alphabet,
                    const uint32_t *symbols, const uint8_t *contexts, uint64_t count,
                    uint32_t lanes, uint32_t *states, uint16_t *out, uint64_t capacity,
                    uint64_t *used, void *workspace, size_t workspace_size);

#endif
