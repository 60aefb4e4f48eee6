/* Reads .dcz files, compressed networks; docs/format.md says what they are, docs/edge.md how to use
 * this.
 *
 * Nothing is allocated, nothing is copied that need not be: every buffer is the caller's, and every
 * function that needs working memory has one beside it that says how much. Of libc it takes memcpy and
 * memset. No global state: threads may decode tensors of one file side by side.
 *
 * Whatever the bytes of a file are, functions return a code and stay within their buffers. After a
 * code other than DCZ_OK an output holds nothing of meaning. */
#ifndef DCZ_H
#define DCZ_H

#include <stddef.h>
#include <stdint.h>

#include "context.h" /* DCZ_OK, DCZ_NO_ROOM, DCZ_MISUSE */

/* DCZ_DAMAGED: not as a writer left it. DCZ_FOREIGN: no .dcz file. DCZ_NEWER: a version or a feature
 * that this decoder does not know. DCZ_LIMIT: larger than the caller allows. */
enum { DCZ_DAMAGED = 5, DCZ_FOREIGN = 6, DCZ_NEWER = 7, DCZ_LIMIT = 8 };

/* A code in words. */
const char *dcz_message(int code);

enum { /* element types, by their number in the file */
    DCZ_FLOAT32, DCZ_FLOAT16, DCZ_FLOAT64, DCZ_BOOL, DCZ_INT8, DCZ_INT16, DCZ_INT32, DCZ_INT64,
    DCZ_UINT8, DCZ_UINT16, DCZ_UINT32, DCZ_UINT64
};

enum { /* modes, likewise */
    DCZ_RAW, DCZ_FP16, DCZ_GAP_SHARED, DCZ_GAP_FLOAT, DCZ_GAP_RANS, DCZ_DENSE_RANS, DCZ_CONTEXT,
    DCZ_PACKED
};

enum { DCZ_DIMENSIONS = 32 };

/* What a caller accepts, in bytes as decoded; dimensions of 0 count as 1 in tensor_bytes. */
typedef struct {
    uint64_t tensor_bytes, total_bytes, graph_bytes, tensors;
} dcz_limits;

/* A part of a file, or of the memory that it was opened with. */
typedef struct {
    const uint8_t *at;
    size_t size;
} dcz_part;

/* An open file. Its bytes and the memory must outlive it. */
typedef struct {
    dcz_part directory, checksums, payloads, graph; /* the graph as it is stored */
    size_t lines;                                   /* where the tensors' begin in the directory */
    size_t tensors, texts;
    uint32_t has_graph, graph_bytes, graph_crc; /* bytes: inflated */
    uint32_t crc[256];
} dcz_file;

/* A tensor of it. Zeroed memory stands before the first. */
typedef struct {
    dcz_part name; /* UTF-8, without a zero at its end */
    uint32_t mode, dtype, dimensions;
    size_t shape[DCZ_DIMENSIONS];
    size_t elements, bytes; /* bytes: dense, in its dtype */
    dcz_part payload;
    uint32_t payload_crc, decoded_crc;
    size_t number; /* 1 for the first */
    size_t next_line, next_checksum, next_payload;
} dcz_tensor;

/* Bytes of memory that dcz_open needs, aligned to 8: a little more than the directory. */
size_t dcz_open_memory(const void *data, size_t size);

/* Check header, directory and lengths of a file that is in memory. No limits, null, are 4 GiB in all,
 * 256 MiB for the graph, 65,536 tensors. */
int dcz_open(dcz_file *file, const void *data, size_t size, const dcz_limits *limits, void *memory,
             size_t memory_size);

/* Step on to the next tensor; 0 after the last. */
int dcz_next(const dcz_file *file, dcz_tensor *tensor);

/* Find a tensor by its name; 0 where there is none. */
int dcz_find(const dcz_file *file, const char *name, dcz_tensor *tensor);

/* The metadata text number i, below file->texts. */
void dcz_text(const dcz_file *file, size_t i, dcz_part *key, dcz_part *value);

/* Bytes of an element of a dtype. */
uint32_t dcz_itemsize(uint32_t dtype);

/* Whether a tensor has a codebook. */
int dcz_shared(const dcz_tensor *tensor);

/* Entries of its codebook; 0 where there is none. */
uint32_t dcz_entries(const dcz_tensor *tensor);

/* Bytes of an index: 1, 2, or for 65,536 entries 4. */
uint32_t dcz_index_bytes(uint32_t entries);

/* Bytes of working memory, aligned to 8, that decoding a tensor takes at most: densely, or as
 * indices. 0 for RAW, FP16 and PACKED. */
size_t dcz_dense_memory(const dcz_tensor *tensor);
size_t dcz_indices_memory(const dcz_tensor *tensor);

/* The elements, tensor->bytes of them, in their dtype: float32 in all modes but RAW. out is aligned
 * as its elements are. */
int dcz_dense(const dcz_file *file, const dcz_tensor *tensor, void *out, size_t out_size,
              void *memory, size_t memory_size);

/* Of a tensor with a codebook: an index of dcz_index_bytes each for its elements, where 0 is the
 * weight 0 and i > 0 codebook[i - 1]; and the codebook, dcz_entries floats. */
int dcz_indices(const dcz_file *file, const dcz_tensor *tensor, void *indices, size_t indices_size,
                float *codebook, size_t codebook_size, void *memory, size_t memory_size);

/* Bits that hold every index: the least. */
uint32_t dcz_bits(uint32_t entries);

/* Pack indices in place, of index_bytes each, to bits each, the most significant first; the bytes that
 * they take now. */
size_t dcz_pack(void *indices, size_t count, uint32_t index_bytes, uint32_t bits);

/* Look a packed index up. */
static inline uint32_t dcz_packed(const uint8_t *packed, uint32_t bits, size_t i) {
    uint64_t window = 0, first = (uint64_t)i * bits;
    const uint64_t last = (first + bits + 7) / 8;
    for (uint64_t at = first / 8; at < last; at++) window = window << 8 | packed[at];
    return (uint32_t)(window >> (8 * last - first - bits)) & (uint32_t)((1ull << bits) - 1);
}

/* The graph, file->graph_bytes of ONNX without its weights, where file->has_graph. */
int dcz_graph(const dcz_file *file, void *out, size_t out_size);

#endif
