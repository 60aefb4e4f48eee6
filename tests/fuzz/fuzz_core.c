/* A libFuzzer target for every function of the C core that reads what a file holds.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
 *         -I compressor/coding/core tests/fuzz/fuzz_core.c compressor/coding/core/streams.c \
 *         compressor/coding/core/context.c -o fuzz_core && ./fuzz_core -max_total_time=3600
 *
 * Buffers have exactly the size that the functions are told, so any step beyond is seen. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "streams.h"

typedef struct {
    const uint8_t *at;
    size_t left;
} input;

static uint32_t byte(input *in) {
    if (!in->left) return 0;
    in->left--;
    return *in->at++;
}

static uint32_t number(input *in) { return byte(in) | byte(in) << 8; }

/* The rest of the input, or a part, at an address of its own. */
static uint8_t *part(input *in, size_t size) {
    if (size > in->left) size = in->left;
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, in->at, size);
    in->at += size;
    in->left -= size;
    return copy;
}

static uint32_t crc_tables[16 * 256];

static void aim(dcz_target *t, input *in, uint64_t n, uint64_t entries) {
    const uint32_t what = byte(in);
    memset(t, 0, sizeof *t);
    t->n = n;
    t->entries = entries;
    t->index_bytes = entries <= 256 ? 1 : 2;
    t->indices = what & 1 ? malloc(n * t->index_bytes + 1) : NULL;
    t->table = calloc(entries + 1, sizeof(float));
    t->floats = what & 2 ? malloc(n * sizeof(float) + 1) : NULL;
    t->crc_tables = crc_tables;
}

static void drop(dcz_target *t) {
    free(t->indices);
    free((void *)t->table);
    free(t->floats);
}

/* A complete code: lengths from the input, completed or cut where they do not fit. */
static int8_t *lengths(input *in, uint64_t symbols) {
    int8_t *found = malloc(symbols + 1);
    uint32_t room = 1u << 17;
    const int honest = byte(in) & 1;
    memset(found, -1, symbols + 1);
    for (uint64_t s = 0; s < symbols; s++) {
        int8_t length = (int8_t)(byte(in) % 20 - 1);
        if (honest) {
            if (s + 1 == symbols || length < 1 || length > 17) length = -1;
            if (length > 0 && (1u << (17 - length)) >= room) length = -1;
            if (length > 0) room -= 1u << (17 - length);
        }
        found[s] = length;
    }
    for (uint64_t s = symbols; honest && room && s-- > 0;) {
        if (found[s] >= 0) continue;
        int8_t length = 0;
        while ((1u << (17 - length)) > room) length++;
        found[s] = length;
        room -= 1u << (17 - length);
    }
    return found;
}

static void gaps(input *in) {
    const uint32_t width = byte(in) % 14;
    const uint64_t n = number(in) % 5000 * (1 + byte(in) % 20);
    dcz_code codes[2];
    uint8_t *streams[2];
    dcz_target target;
    for (int i = 0; i < 2; i++) {
        codes[i].symbols = i ? 1 + byte(in) % 40 : 1 + number(in) % (1u << (width < 12 ? width : 12));
        codes[i].lengths = lengths(in, codes[i].symbols);
    }
    const uint64_t kept = number(in), fillers = byte(in);
    aim(&target, in, n, codes[1].symbols - (byte(in) > 250));
    for (int i = 0; i < 2; i++) {
        const size_t want = i ? in->left : number(in), size = want < in->left ? want : in->left;
        codes[i].stream = streams[i] = part(in, size);
        codes[i].size = size;
    }
    void *workspace = malloc(dcz_gaps_workspace());
    dcz_decode_gaps(&codes[0], &codes[1], kept, fillers, width, &target, workspace,
                    dcz_gaps_workspace());
    free(workspace);
    for (int i = 0; i < 2; i++) {
        free(streams[i]);
        free((void *)codes[i].lengths);
    }
    drop(&target);
}

/* Tables that sum to 2^14, or one that does not. */
static uint32_t *frequencies(input *in, uint64_t tables, uint64_t alphabet) {
    uint32_t *found = calloc(tables * alphabet, sizeof *found);
    const int honest = byte(in) & 7;
    for (uint64_t t = 0; t < tables; t++) {
        uint32_t room = 1 << 14;
        for (uint64_t s = 0; s < alphabet; s++) {
            uint32_t many = number(in);
            if (many > room) many = room;
            if (s + 1 == alphabet && honest) many = room;
            found[t * alphabet + s] = many;
            room -= many;
        }
    }
    return found;
}

static void rans(input *in, int dense) {
    const uint64_t tables = dense ? 1 + byte(in) % 22 : 2, alphabet = 1 + byte(in);
    const uint64_t rows = 1 + byte(in), columns = 1 + number(in) % 600;
    uint32_t *counts = frequencies(in, tables, alphabet);
    const uint32_t width = byte(in) % 14, fillers = byte(in);
    const uint64_t kept = number(in);
    const uint64_t first = dense ? number(in) % (rows * columns + 2) : 0;
    const uint64_t all = rows * columns, rest = first > all ? 1 : all - first;
    dcz_target target;
    aim(&target, in, rest + (byte(in) > 250), alphabet - (alphabet > 1 && byte(in) > 250));
    uint8_t *row = malloc(rows), *column = malloc(columns);
    for (uint64_t r = 0; r < rows; r++) row[r] = (uint8_t)(byte(in) % 9);
    for (uint64_t c = 0; c < columns; c++) column[c] = (uint8_t)(byte(in) % 16);
    const size_t size = in->left, room = dcz_rans_workspace(tables);
    uint8_t *stream = part(in, size);
    void *workspace = malloc(room);
    if (dense)
        dcz_decode_dense(counts, tables, alphabet, stream, size, row, rows, column, columns, first,
                         &target, workspace, room);
    else
        dcz_decode_rans_gaps(counts, alphabet, stream, size, kept, fillers, width, &target,
                             workspace, room);
    free(workspace);
    free(stream);
    free(row);
    free(column);
    free(counts);
    drop(&target);
}

static void context(input *in) {
    dcz_context_shape shape = {1 + byte(in), 1 + byte(in), byte(in) % 8, byte(in) % 8, 0, 0, 0};
    shape.positive = byte(in) & 1 ? byte(in) : number(in) * (1 + byte(in) % 2);
    shape.negative = byte(in) & 1 ? byte(in) : number(in) * (1 + byte(in) % 2);
    shape.rate = byte(in) % 70;
    const size_t size = in->left;
    uint8_t *stream = part(in, size);
    int32_t *levels = malloc(shape.rows * shape.columns * sizeof *levels);
    void *workspace = malloc(dcz_context_workspace());
    if (!dcz_context_decode(&shape, stream, size, levels, workspace, dcz_context_workspace())) {
        /* What decodes was written by an encoder: it comes out again. */
        uint8_t *again = malloc(size + 1);
        size_t written = 0;
        if (dcz_context_encode(&shape, levels, again, size, &written, workspace,
                               dcz_context_workspace()) ||
            written != size || memcmp(again, stream, size))
            abort();
        free(again);
    }
    free(workspace);
    free(levels);
    free(stream);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    dcz_crc_tables(crc_tables);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    switch (byte(&in) % 4) {
        case 0: gaps(&in); break;
        case 1: rans(&in, 0); break;
        case 2: rans(&in, 1); break;
        default: context(&in);
    }
    return 0;
}
