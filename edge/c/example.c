/* Says what a .dcz file holds, and writes the weights that it decodes to.
 *
 *     cd edge/c && cc -std=c11 -O2 -I../../compressor/coding/core \
 *         *.c ../../compressor/coding/core/context.c -o dcz
 *     ./dcz lenet5.dcz                    all tensors, and what each takes
 *     ./dcz lenet5.dcz fc1.weight w.bin   one tensor, as float32 or whatever its type is
 *     ./dcz -i lenet5.dcz fc1.weight w.bin   its indices, and in w.bin.codebook the floats they stand for
 *
 * The decoder allocates nothing: what it needs, it says, and this program gets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dcz.h"

static void stop(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void *memory_of(size_t size) {
    void *found = malloc(size ? size : 1);
    if (!found) stop("memory", "there is not enough");
    return found;
}

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) stop(path, "it cannot be read");
    const long end = ftell(file);
    rewind(file);
    uint8_t *data = memory_of((size_t)end);
    if (end < 0 || fread(data, 1, (size_t)end, file) != (size_t)end) stop(path, "it cannot be read");
    fclose(file);
    *size = (size_t)end;
    return data;
}

static void write_file(const char *path, const char *suffix, const void *data, size_t size) {
    char whole[4096];
    snprintf(whole, sizeof whole, "%s%s", path, suffix);
    FILE *file = fopen(whole, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) stop(whole, "it cannot be written");
}

/* One line of each tensor: its name, shape, mode, bytes in the file, bytes as weights. */
static void list(const dcz_file *file) {
    static const char *modes[] = {"raw", "fp16", "gap-shared", "gap-float",
                                  "gap-rans", "dense-rans", "context", "packed"};
    dcz_tensor t;
    memset(&t, 0, sizeof t);
    while (dcz_next(file, &t)) {
        printf("%-32.*s", (int)t.name.size, (const char *)t.name.at);
        for (uint32_t d = 0; d < t.dimensions; d++) printf("%s%zu", d ? "x" : "", t.shape[d]);
        printf("  %s  %zu -> %zu bytes, memory %zu\n", modes[t.mode], t.payload.size, t.bytes,
               dcz_dense_memory(&t));
    }
}

static void decode_dense(const dcz_file *file, const dcz_tensor *t, const char *path) {
    const size_t size = dcz_dense_memory(t);
    void *out = memory_of(t->bytes), *memory = memory_of(size);
    const int code = dcz_dense(file, t, out, t->bytes, memory, size);
    if (code) stop(path, dcz_message(code));
    write_file(path, "", out, t->bytes);
    free(memory);
    free(out);
}

static void decode_indices(const dcz_file *file, const dcz_tensor *t, const char *path) {
    if (!dcz_shared(t)) stop(path, "the tensor has no codebook");
    const size_t size = dcz_indices_memory(t), entries = dcz_entries(t);
    const size_t bytes = t->elements * dcz_index_bytes(dcz_entries(t));
    void *indices = memory_of(bytes), *memory = memory_of(size);
    float *codebook = memory_of(4 * entries);
    const int code = dcz_indices(file, t, indices, bytes, codebook, 4 * entries, memory, size);
    if (code) stop(path, dcz_message(code));
    write_file(path, "", indices, bytes);
    write_file(path, ".codebook", codebook, 4 * entries);
    free(codebook);
    free(memory);
    free(indices);
}

int main(int argc, char **argv) {
    const int as_indices = argc > 1 && !strcmp(argv[1], "-i");
    char **words = argv + 1 + as_indices;
    const int count = argc - 1 - as_indices;
    if (count != 1 && count != 3) stop("usage", "dcz [-i] FILE.dcz [TENSOR OUTPUT]");
    size_t size;
    uint8_t *data = read_file(words[0], &size);
    const size_t needed = dcz_open_memory(data, size);
    void *memory = memory_of(needed);
    dcz_file file;
    dcz_tensor tensor;
    const int code = dcz_open(&file, data, size, NULL, memory, needed);
    if (code) stop(words[0], dcz_message(code));
    if (count == 1)
        list(&file);
    else if (!dcz_find(&file, words[1], &tensor))
        stop(words[1], "there is no such tensor");
    else
        (as_indices ? decode_indices : decode_dense)(&file, &tensor, words[2]);
    free(memory);
    free(data);
    return 0;
}
