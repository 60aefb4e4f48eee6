/* Decodes files by edge/c in every way there is, and says what came of it; what is decoded goes to a
 * folder, if there is one. Buffers have exactly the sizes that were asked for, so that sanitizers see
 * any step beyond.
 *
 *     edge_replay LIMIT FOLDER|- FILE...
 *
 * LIMIT bytes are the most of a tensor, of all together, of the graph. For each file a line with the
 * code of dcz_open, then one for each tensor: code, dtype, dimensions; and "graph" with its code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dcz.h"

static const char *folder;
static int files;

static void *room(size_t size) {
    void *found = size ? malloc(size) : NULL;
    if (size && !found) exit(3);
    return found;
}

static void keep(const char *what, uint64_t number, const void *data, size_t size) {
    char path[512];
    if (!strcmp(folder, "-")) return;
    snprintf(path, sizeof path, "%s/%d-%s%llu", folder, files, what, (unsigned long long)number);
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file)) exit(3);
}

/* Of a tensor that decodes, the indices give the same; packed, too. */
static void check_indices(const dcz_file *f, const dcz_tensor *t, const uint8_t *dense) {
    const uint32_t entries = dcz_entries(t), item = dcz_index_bytes(entries), bits = dcz_bits(entries);
    const size_t size = item * t->elements, scratch = dcz_indices_memory(t);
    uint8_t *indices = room(size);
    float *codebook = room(4 * entries);
    void *memory = room(scratch);
    if (dcz_indices(f, t, indices, size, codebook, 4 * entries, memory, scratch)) abort();
    free(memory);
    for (int packed = 0; packed < 2; packed++) {
        if (packed) {
            const size_t used = dcz_pack(indices, t->elements, item, bits);
            if (used != (t->elements * bits + 7) / 8) abort();
            indices = used ? realloc(indices, used) : indices;
        }
        for (size_t i = 0; i < t->elements; i++) {
            uint32_t index = 0;
            if (packed)
                index = dcz_packed(indices, bits, i);
            else
                memcpy(&index, indices + item * i, item);
            const float zero = 0;
            if (memcmp(index ? codebook + index - 1 : &zero, dense + 4 * i, 4)) abort();
        }
    }
    free(indices);
    free(codebook);
}

static void decode(const dcz_file *f, const dcz_tensor *t) {
    const size_t scratch = dcz_dense_memory(t);
    uint8_t *out = room(t->bytes);
    void *memory = room(scratch);
    const int code = dcz_dense(f, t, out, t->bytes, memory, scratch);
    printf("%d %u", code, t->dtype);
    for (uint32_t d = 0; d < t->dimensions; d++) printf(" %llu", (unsigned long long)t->shape[d]);
    puts("");
    if (!code) {
        keep("name", t->number, t->name.at, t->name.size);
        keep("tensor", t->number, out, t->bytes);
        if (dcz_shared(t)) check_indices(f, t, out);
    }
    free(memory);
    free(out);
}

static void replay(const char *path, uint64_t limit) {
    const dcz_limits limits = {limit, limit, limit, limit};
    FILE *file = fopen(path, "rb");
    if (!file) exit(3);
    fseek(file, 0, SEEK_END);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, file) != size) exit(3);
    fclose(file);
    const size_t needed = dcz_open_memory(data, size);
    void *memory = room(needed);
    dcz_file f;
    dcz_tensor t = {.number = 0};
    const int code = dcz_open(&f, data, size, &limits, memory, needed);
    printf("open %d\n", code);
    if (!code) {
        while (dcz_next(&f, &t)) decode(&f, &t);
        if (t.number != f.tensors) abort();
        for (size_t i = 0; i < f.texts; i++) {
            dcz_part key, value;
            dcz_text(&f, i, &key, &value);
            keep("key", i, key.at, key.size);
            keep("value", i, value.at, value.size);
        }
        if (f.has_graph) {
            uint8_t *graph = malloc(f.graph_bytes + 1);
            const int found = dcz_graph(&f, graph, f.graph_bytes);
            printf("graph %d\n", found);
            if (!found) keep("graph", 0, graph, f.graph_bytes);
            free(graph);
        }
    }
    free(memory);
    free(data);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    folder = argv[2];
    for (int i = 3; i < argc; i++, files++) replay(argv[i], strtoull(argv[1], NULL, 10));
    return 0;
}
