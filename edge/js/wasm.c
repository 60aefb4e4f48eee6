/* What dcz.js calls: the decoder of edge/c, one file at a time, in numbers of 32 bits. JavaScript owns
 * the memory from __heap_base on. */
#include <string.h>

#include "dcz.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

static dcz_file file;
static dcz_tensor tensor;

/* Of the file: tensors, texts, whether there is a graph, its bytes. Of a tensor: name and its size,
 * dtype, bytes, memory, dimensions, shape. Of a text: key and its size, value and its size. */
static uint32_t facts[6 + DCZ_DIMENSIONS];

const uint32_t *EXPORT(told)(void) { return facts; }

uint32_t EXPORT(memory_to_open)(const uint8_t *data, size_t size) { return dcz_open_memory(data, size); }

/* Limits are whole numbers up to 2^53. */
int EXPORT(open)(const uint8_t *data, size_t size, double tensor_bytes, double total_bytes,
                 double graph_bytes, double tensors, void *memory, size_t memory_size) {
    const dcz_limits limits = {(uint64_t)tensor_bytes, (uint64_t)total_bytes, (uint64_t)graph_bytes,
                               (uint64_t)tensors};
    const int code = dcz_open(&file, data, size, &limits, memory, memory_size);
    memset(&tensor, 0, sizeof tensor);
    facts[0] = file.tensors;
    facts[1] = file.texts;
    facts[2] = file.has_graph;
    facts[3] = file.graph_bytes;
    return code;
}

int EXPORT(next)(void) {
    if (!dcz_next(&file, &tensor)) return 0;
    const uint32_t found[] = {(uint32_t)tensor.name.at, tensor.name.size, tensor.dtype,
                              tensor.bytes, dcz_dense_memory(&tensor), tensor.dimensions};
    memcpy(facts, found, sizeof found);
    memcpy(facts + 6, tensor.shape, 4 * tensor.dimensions);
    return 1;
}

void EXPORT(text)(uint32_t i) {
    dcz_part key, value;
    dcz_text(&file, i, &key, &value);
    const uint32_t found[] = {(uint32_t)key.at, key.size, (uint32_t)value.at, value.size};
    memcpy(facts, found, sizeof found);
}

int EXPORT(dense)(void *out, void *memory, size_t memory_size) {
    return dcz_dense(&file, &tensor, out, tensor.bytes, memory, memory_size);
}

int EXPORT(graph)(void *out) { return dcz_graph(&file, out, file.graph_bytes); }
