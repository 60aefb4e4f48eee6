/* A libFuzzer target for every function of the C core: those that read what a file holds, and through
 * them, where something was read, those that write it.
 *
 * `make fuzz` builds and runs it; tests/fuzz/corpus.py writes real payloads as its inputs, field by
 * field as they are read here, so that a change of one is a change of the other. Buffers have exactly
 * the size that the functions are told, so any step beyond is seen. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "entries.h"
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

static uint32_t number(input *in) {
    const uint32_t low = byte(in);
    return low | byte(in) << 8;
}

static uint64_t weights(input *in) {
    const uint64_t low = number(in);
    return (low | (uint64_t)byte(in) << 16) % 150000;
}

/* The rest of the input, or a part, at an address of its own. */
static uint8_t *part(input *in, size_t size) {
    if (size > in->left) size = in->left;
    uint8_t *copy = malloc(size ? size : 1);
    if (size) memcpy(copy, in->at, size);
    in->at += size;
    in->left -= size;
    return copy;
}

static uint32_t crc_tables[16 * 256];

/* What is wanted: 1 indices, 2 floats, 3 both. */
static void aim(dcz_target *t, uint32_t what, uint64_t n, uint64_t entries) {
    memset(t, 0, sizeof *t);
    t->n = n;
    t->entries = entries;
    t->index_bytes = entries <= 256 ? 1 : 2;
    t->indices = what & 1 ? malloc(n * t->index_bytes + !n) : NULL;
    t->table = calloc(entries + !entries, sizeof(float));
    t->floats = what & 2 ? malloc(n * sizeof(float) + !n) : NULL;
    t->crc_tables = crc_tables;
}

static void drop(dcz_target *t) {
    free(t->indices);
    free((void *)t->table);
    free(t->floats);
}

/* The lengths of a code, each 1 more than it is, 0 for none. Where the first byte is odd, they are
 * completed or cut until they fill the code space: what a damaged input would not else get past. */
static int8_t *lengths(input *in, uint64_t symbols) {
    int8_t *found = malloc(symbols);
    uint32_t room = 1u << 17;
    const int honest = byte(in) & 1;
    for (uint64_t s = 0; s < symbols; s++) {
        int8_t length = (int8_t)(byte(in) % 20 - 1);
        if (honest) {
            if (length < 1 || length > 17) length = -1;
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

/* Scratch of exactly this size, as it was left: making it anew takes longer than most decoding. */
static void *scratch(size_t size) {
    static struct {
        size_t size;
        void *at;
    } held[32];
    int i = 0;
    while (held[i].at && held[i].size != size) i++;
    if (!held[i].at) {
        held[i].size = size;
        held[i].at = malloc(size);
    }
    return held[i].at;
}

static void gaps(input *in) {
    const uint32_t what = byte(in), width = byte(in) % 40;
    const uint64_t n = weights(in);
    dcz_code codes[2];
    uint8_t *streams[2];
    dcz_target target;
    for (int i = 0; i < 2; i++) {
        codes[i].symbols = 1 + number(in) % (i ? 600 : 4096);
        codes[i].lengths = lengths(in, codes[i].symbols);
    }
    const uint64_t kept = weights(in), fillers = weights(in);
    aim(&target, what, n, codes[1].symbols - (what >> 2 & 1));
    for (int i = 0; i < 2; i++) {
        const size_t want = i ? in->left : weights(in), size = want < in->left ? want : in->left;
        codes[i].stream = streams[i] = part(in, size);
        codes[i].size = size;
    }
    dcz_decode_gaps(&codes[0], &codes[1], kept, fillers, width, &target,
                    scratch(dcz_gaps_workspace()), dcz_gaps_workspace());
    for (int i = 0; i < 2; i++) {
        free(streams[i]);
        free((void *)codes[i].lengths);
    }
    drop(&target);
}

/* Tables that sum to 2^14, but for a first byte of 0: then as they are. */
static uint32_t *frequencies(input *in, uint64_t tables, uint64_t alphabet) {
    uint32_t *found = calloc(tables * alphabet, sizeof *found);
    const int honest = byte(in) != 0;
    for (uint64_t t = 0; t < tables; t++) {
        uint32_t room = 1 << 14;
        for (uint64_t s = 0; s < alphabet; s++) {
            uint32_t many = number(in);
            if (honest && (many > room || s + 1 == alphabet)) many = room;
            found[t * alphabet + s] = many;
            room -= many;
        }
    }
    return found;
}

static void entries(input *in) {
    const uint32_t what = byte(in), width = byte(in) % 40;
    const uint64_t n = weights(in), kept = weights(in), fillers = weights(in);
    const uint64_t alphabet = 1 + number(in) % 600;
    uint32_t *counts = frequencies(in, 2, alphabet);
    dcz_target target;
    aim(&target, what, n, 1 + number(in) % 600);
    const size_t size = in->left, room = dcz_rans_workspace(2);
    uint8_t *stream = part(in, size);
    dcz_decode_rans_gaps(counts, alphabet, stream, size, kept, fillers, width, &target,
                         scratch(room), room);
    free(stream);
    free(counts);
    drop(&target);
}

/* What was decoded is written again: a stream has one form. */
static void write_again(const dcz_target *t, const uint32_t *counts, uint64_t tables,
                        uint64_t alphabet, const uint8_t *row, const uint8_t *column,
                        uint64_t columns, uint64_t first, const uint8_t *stream, size_t size) {
    const uint64_t lanes = (uint64_t)1 << stream[0];
    uint32_t *symbols = malloc(t->n * sizeof *symbols), *states = malloc(lanes * sizeof *states);
    uint8_t *contexts = malloc(t->n);
    uint16_t *words = malloc((t->n + 1) * sizeof *words);
    const size_t room = tables * alphabet * sizeof(uint32_t);
    uint32_t *workspace = malloc(room);
    uint64_t used = 0;
    for (uint64_t i = 0; i < t->n; i++) {
        symbols[i] = t->index_bytes == 1 ? t->indices[i]
                                         : t->indices[2 * i] | (uint32_t)t->indices[2 * i + 1] << 8;
        contexts[i] = (uint8_t)(row[(first + i) / columns] + column[(first + i) % columns]);
    }
    const uint8_t *held = tables > 1 ? contexts : NULL; /* classes of one table say nothing */
    if (dcz_encode_rans(counts, tables, alphabet, symbols, held, t->n, stream[0], states, words,
                        t->n + 1, &used, workspace, room) ||
        size != 1 + 4 * lanes + 2 * used || memcmp(stream + 1, states, 4 * lanes) ||
        (used && memcmp(stream + 1 + 4 * lanes, words + t->n + 1 - used, 2 * used)))
        abort();
    free(symbols);
    free(states);
    free(contexts);
    free(words);
    free(workspace);
}

static void dense(input *in) {
    const uint32_t what = byte(in);
    const uint64_t tables = 1 + byte(in) % 22, alphabet = 1 + number(in) % 600;
    const uint64_t rows = 1 + number(in) % 600, columns = 1 + number(in) % 600;
    uint32_t *counts = frequencies(in, tables, alphabet);
    dcz_target target;
    const uint64_t all = rows * columns, first = what >> 3 & 1 ? number(in) % (all + 2) : 0;
    const uint64_t rest = first > all ? 1 : all - first;
    aim(&target, what, rest + (what >> 4 & 1), alphabet - (alphabet > 1 && what >> 2 & 1));
    uint8_t *row = malloc(rows), *column = malloc(columns);
    for (uint64_t r = 0; r < rows; r++) row[r] = (uint8_t)(byte(in) % 9);
    for (uint64_t c = 0; c < columns; c++) column[c] = (uint8_t)(byte(in) % 16);
    const size_t size = in->left, room = dcz_rans_workspace(tables);
    uint8_t *stream = part(in, size);
    if (!dcz_decode_dense(counts, tables, alphabet, stream, size, row, rows, column, columns, first,
                          &target, scratch(room), room) &&
        target.indices)
        write_again(&target, counts, tables, alphabet, row, column, columns, first, stream, size);
    free(stream);
    free(row);
    free(column);
    free(counts);
    drop(&target);
}

static void context(input *in) {
    dcz_context_shape shape = {0, 0, 0, 0, 0, 0, 0};
    shape.rows = 1 + number(in) % 600;
    shape.columns = 1 + number(in) % 600;
    if (shape.rows * shape.columns > 20000) shape.columns = 1;
    shape.plane_height = byte(in);
    shape.plane_width = byte(in);
    shape.positive = number(in) + byte(in) * 256;
    shape.negative = number(in) + byte(in) * 256;
    shape.rate = byte(in) % 70;
    const size_t size = in->left;
    uint8_t *stream = part(in, size);
    int32_t *levels = malloc(shape.rows * shape.columns * sizeof *levels);
    const size_t room = dcz_context_workspace(&shape);
    void *workspace = malloc(room);
    if (!dcz_context_decode(&shape, stream, size, levels, workspace, room)) {
        /* What decodes was written by an encoder: it comes out again. */
        uint8_t *again = malloc(size + 1);
        size_t written = 0;
        if (dcz_context_encode(&shape, levels, again, size, &written, workspace, room) ||
            written != size || memcmp(again, stream, size))
            abort();
        if (size && dcz_context_encode(&shape, levels, again, size - 1, &written, workspace,
                                       room) != DCZ_NO_ROOM)
            abort();
        free(again);
    }
    free(workspace);
    free(levels);
    free(stream);
}

/* Codewords of any length, from any bit on, into a buffer that may be too small. */
static void codewords(input *in) {
    const uint64_t alphabet = 1 + byte(in), capacity = number(in) % 5000;
    uint32_t *codes = malloc(alphabet * sizeof *codes);
    uint8_t *sizes = malloc(alphabet), *out = calloc(capacity + !capacity, 1);
    for (uint64_t s = 0; s < alphabet; s++) {
        sizes[s] = (uint8_t)(byte(in) % 19);
        codes[s] = (number(in) | byte(in) << 16) & ((1u << sizes[s]) - 1);
    }
    uint64_t bits = number(in);
    const uint64_t count = in->left, before = bits;
    uint32_t *symbols = malloc(count * sizeof *symbols + !count);
    uint64_t total = before;
    for (uint64_t i = 0; i < count; i++) {
        symbols[i] = byte(in);
        if (symbols[i] < alphabet) total += sizes[symbols[i]];
    }
    if (!dcz_encode_symbols(codes, sizes, alphabet, symbols, count, out, capacity, &bits) &&
        bits != total)
        abort();
    free(codes);
    free(sizes);
    free(out);
    free(symbols);
}

static uint32_t symbol_at(const uint8_t *symbols, uint32_t item, uint64_t i) {
    uint32_t found = 0;
    for (uint32_t b = 0; b < item; b++) found |= (uint32_t)symbols[i * item + b] << 8 * b;
    return found;
}

/* Entries lead back to the symbols that they were listed from; what is counted adds up. */
static void counting(input *in) {
    const uint32_t item = byte(in) % 5, width = byte(in) % 14;
    const uint64_t n = number(in) % 3000, capacity = number(in) % 5000, bins = 1 + number(in) % 300;
    const uint64_t alphabet = number(in), columns = 1 + byte(in), tables = 1 + byte(in) % 22;
    uint8_t *symbols = malloc(n * item + 1);
    for (uint64_t i = 0; i < n * item; i++) symbols[i] = (uint8_t)byte(in);
    uint64_t *runs = calloc(bins, sizeof *runs), *longer = malloc((n / bins + 1) * sizeof *longer);
    uint64_t *counts = calloc(tables * alphabet + !alphabet, sizeof *counts);
    uint32_t *out = malloc((2 * capacity + 1) * sizeof *out);
    uint64_t kept = 0, used = 0, listed = 0, sum = 0, position = 0, seen = 0;
    if (!dcz_list_entries(symbols, item, n, width, out, capacity, &kept, &used)) {
        for (uint64_t e = 0; e < used; e++) {
            position += out[2 * e];
            for (uint64_t i = position - out[2 * e]; i < position; i++)
                if (symbol_at(symbols, item, i)) abort();
            if (symbol_at(symbols, item, position++) != out[2 * e + 1]) abort();
            seen += out[2 * e + 1] != 0;
        }
        if (seen != kept) abort();
    }
    const int all = !dcz_count_runs(symbols, item, n, runs, bins, longer, n / bins, &listed, counts,
                                    alphabet);
    for (uint64_t r = 0; r < bins; r++) sum += runs[r];
    for (uint64_t i = 0; all && i < n; i++) sum -= symbol_at(symbols, item, i) != 0;
    if (all && sum + listed != 0) abort();
    uint8_t *classes = malloc(n / columns + columns);
    for (uint64_t i = 0; i < n / columns + columns; i++) classes[i] = (uint8_t)(byte(in) % 12);
    dcz_count_tables(symbols, item, classes, n / columns, classes + n / columns, columns, counts,
                     tables, alphabet);
    free(symbols);
    free(runs);
    free(longer);
    free(counts);
    free(out);
    free(classes);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    dcz_crc_tables(crc_tables);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    switch (byte(&in) % 6) {
        case 0: gaps(&in); break;
        case 1: entries(&in); break;
        case 2: dense(&in); break;
        case 3: context(&in); break;
        case 4: codewords(&in); break;
        default: counting(&in);
    }
    return 0;
}
