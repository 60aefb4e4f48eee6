/* docs/format.md, "The file": header, directory, checksums; what is where. */
#include "inside.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "elements are copied as they are in the file, little-endian"
#endif

enum {
    HEADER = 24,
    DEFLATED = 1,
    HAS_GRAPH = 2,
    MOST_DIRECTORY = 1 << 22,
    MOST_TEXTS = 1 << 10,
    MODES = DCZ_PACKED + 1,
    DTYPES = DCZ_UINT64 + 1
};

static const uint8_t MAGIC[8] = {0x89, 'D', 'C', 'Z', '\r', '\n', 0x1A, '\n'};

const char *dcz_message(int code) {
    switch (code) {
        case DCZ_OK: return "it is as it should be";
        case DCZ_NO_ROOM: return "a buffer is too small";
        case DCZ_MISUSE: return "this cannot be asked for";
        case DCZ_FOREIGN: return "this is not a .dcz file";
        case DCZ_NEWER: return "the file is of a version that this decoder does not know";
        case DCZ_LIMIT: return "the file declares more than the limits allow";
        default: return "the file is damaged";
    }
}

uint32_t dcz_itemsize(uint32_t dtype) {
    static const uint8_t sizes[DTYPES] = {4, 2, 8, 1, 1, 2, 4, 8, 1, 2, 4, 8};
    return dtype < DTYPES ? sizes[dtype] : 0;
}

static int coded(uint32_t mode) { return mode != DCZ_RAW && mode != DCZ_FP16; }

/* Read a tensor's line, and find its checksums and its payload. */
static int read_line(const dcz_file *f, const dcz_limits *limits, dcz_tensor *t) {
    source s = dcz_source(f->directory.at + t->next_line, f->directory.size - t->next_line);
    source crcs = dcz_source(f->checksums.at + t->next_checksum, f->checksums.size - t->next_checksum);
    source payloads = dcz_source(f->payloads.at + t->next_payload, f->payloads.size - t->next_payload);
    const uint32_t byte = dcz_byte(&s);
    t->name = dcz_text_part(&s);
    t->mode = byte & 15;
    t->dtype = byte >> 4;
    t->dimensions = (uint32_t)dcz_count(&s, DCZ_DIMENSIONS);
    if (s.wrong || t->mode >= MODES || t->dtype >= DTYPES) return DCZ_DAMAGED;
    if (t->mode != DCZ_RAW && t->dtype != DCZ_FLOAT32) return DCZ_DAMAGED;
    const uint32_t item = dcz_itemsize(t->dtype);
    uint64_t most = (limits->tensor_bytes < SIZE_MAX / 2 ? limits->tensor_bytes : SIZE_MAX / 2) / item;
    t->elements = 1;
    int over = !most;
    for (uint32_t d = 0; d < t->dimensions; d++) {
        const uint64_t size = dcz_varint(&s);
        t->shape[d] = (size_t)size;
        t->elements *= (size_t)size;
        if (size > 1) most /= size;
        if (!most) over = 1;
    }
    if (s.wrong) return DCZ_DAMAGED;
    if (over) return DCZ_LIMIT;
    t->bytes = t->elements * item;
    const size_t halves = t->bytes / (1u + (t->mode == DCZ_FP16));
    t->payload.size = coded(t->mode) ? dcz_count(&s, t->bytes) : halves;
    if (s.wrong) return DCZ_DAMAGED;
    if (coded(t->mode) && t->payload.size > SIZE_MAX / 16) return DCZ_LIMIT; /* so that bits can be counted */
    t->payload.at = dcz_take(&payloads, t->payload.size);
    t->payload_crc = dcz_u32(&crcs);
    t->decoded_crc = coded(t->mode) ? dcz_u32(&crcs) : 0;
    t->next_line = (size_t)(s.at - f->directory.at);
    t->next_checksum = (size_t)(crcs.at - f->checksums.at);
    t->next_payload = (size_t)(payloads.at - f->payloads.at);
    t->number++;
    return crcs.wrong || payloads.wrong ? DCZ_DAMAGED : DCZ_OK;
}

/* Texts by their places in the directory: which comes first. */
static int before(const void *directory, uint32_t i, uint32_t j) {
    const dcz_part *d = directory;
    source a = dcz_source(d->at + i, d->size - i), b = dcz_source(d->at + j, d->size - j);
    const size_t m = dcz_count(&a, d->size), n = dcz_count(&b, d->size);
    for (size_t at = 0; at < m && at < n; at++)
        if (a.at[at] != b.at[at]) return a.at[at] < b.at[at];
    return m < n;
}

static int twice(const dcz_part *directory, uint32_t *places, size_t count) {
    dcz_sort(places, count, before, directory);
    for (size_t i = 1; i < count; i++)
        if (!before(directory, places[i - 1], places[i])) return 1;
    return 0;
}

/* Check the directory whole; its texts are not told apart without scratch, a number each. */
static int check_directory(dcz_file *f, const dcz_limits *limits, uint32_t *places, size_t room) {
    source s = dcz_source(f->directory.at, f->directory.size);
    uint64_t total = 0;
    int status;
    f->texts = dcz_count(&s, room < MOST_TEXTS ? room : MOST_TEXTS);
    for (size_t i = 0; i < f->texts; i++) {
        places[i] = (uint32_t)(s.at - f->directory.at);
        dcz_text_part(&s);
        dcz_text_part(&s);
        if (s.wrong) return DCZ_DAMAGED;
    }
    if (twice(&f->directory, places, f->texts)) return DCZ_DAMAGED;
    f->tensors = dcz_count(&s, room);
    if (s.wrong) return DCZ_DAMAGED;
    if (f->tensors > limits->tensors) return DCZ_LIMIT;
    f->lines = (size_t)(s.at - f->directory.at);
    dcz_tensor t = {.next_line = f->lines};
    for (size_t i = 0; i < f->tensors; i++) {
        places[i] = (uint32_t)t.next_line + 1;
        if ((status = read_line(f, limits, &t))) return status;
        if (t.bytes > limits->total_bytes - total) return DCZ_LIMIT;
        total += t.bytes;
    }
    if (t.next_line != f->directory.size || t.next_checksum != f->checksums.size) return DCZ_DAMAGED;
    f->payloads.size = t.next_payload;
    return twice(&f->directory, places, f->tensors) ? DCZ_DAMAGED : DCZ_OK;
}

/* Numbers of scratch that a directory of so many bytes may take: a text has two bytes or more. */
static size_t scratch(uint32_t directory) { return directory / 2 + 1; }

size_t dcz_open_memory(const void *data, size_t size) {
    source s = dcz_source(data, size);
    dcz_take(&s, 10);
    const uint8_t *features = dcz_take(&s, 6);
    const uint32_t directory = dcz_u32(&s);
    if (s.wrong || directory > MOST_DIRECTORY) return 0;
    return 4 * scratch(directory) + (features[0] & DEFLATED ? directory : 0) + 16;
}

static void fill_crc(uint32_t *table) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        table[i] = crc;
    }
}

int dcz_open(dcz_file *f, const void *data, size_t size, const dcz_limits *limits, void *memory,
             size_t memory_size) {
    static const dcz_limits usual = {4ull << 30, 4ull << 30, 256u << 20, 1 << 16};
    source s = dcz_source(data, size);
    arena a = {memory, 0, memory_size};
    uint32_t graph_stored = 0;
    const uint8_t *magic = dcz_take(&s, sizeof MAGIC);
    for (size_t i = 0; i < sizeof MAGIC; i++)
        if (!magic || magic[i] != MAGIC[i]) return DCZ_FOREIGN;
    const uint8_t *words = dcz_take(&s, 4);
    const uint32_t stored = dcz_u32(&s), raw = dcz_u32(&s), checksums = dcz_u32(&s);
    if (!words || s.wrong) return DCZ_DAMAGED;
    if (words[0] != 1 || words[1] || words[2] > (DEFLATED | HAS_GRAPH) || words[3]) return DCZ_NEWER;
    memset(f, 0, sizeof *f);
    fill_crc(f->crc);
    f->has_graph = (words[2] & HAS_GRAPH) != 0;
    if (f->has_graph) {
        f->graph_bytes = dcz_u32(&s);
        graph_stored = dcz_u32(&s);
        f->graph_crc = dcz_u32(&s);
    }
    f->directory.size = stored;
    f->directory.at = dcz_take(&s, stored);
    if (checksums > dcz_left(&s) / 4) return DCZ_DAMAGED;
    f->checksums.size = 4 * (size_t)checksums;
    f->checksums.at = dcz_take(&s, f->checksums.size);
    const size_t checked = size - dcz_left(&s);
    const uint32_t crc = dcz_u32(&s);
    if (s.wrong || raw > MOST_DIRECTORY) return DCZ_DAMAGED;
    if (!dcz_same(crc, dcz_crc_of(f->crc, data, checked))) return DCZ_DAMAGED;
    uint32_t *places = dcz_cut(&a, 4 * scratch(raw));
    if ((uintptr_t)memory % 8) return DCZ_MISUSE;
    if (!places) return DCZ_NO_ROOM;
    if (words[2] & DEFLATED) {
        uint8_t *directory = dcz_cut(&a, raw);
        if (!directory) return DCZ_NO_ROOM;
        if (dcz_inflate(f->directory, directory, raw)) return DCZ_DAMAGED;
        f->directory.at = directory;
        f->directory.size = raw;
    }
    if (f->directory.size != raw) return DCZ_DAMAGED;
    f->payloads.at = s.at;
    f->payloads.size = dcz_left(&s);
    limits = limits ? limits : &usual;
    const int status = check_directory(f, limits, places, scratch(raw));
    if (status) return status;
    dcz_take(&s, f->payloads.size);
    f->graph.at = s.at;
    f->graph.size = graph_stored;
    if (dcz_left(&s) != graph_stored) return DCZ_DAMAGED;
    return f->graph_bytes > limits->graph_bytes ? DCZ_LIMIT : DCZ_OK;
}

int dcz_next(const dcz_file *f, dcz_tensor *t) {
    static const dcz_limits none = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    if (t->number >= f->tensors) return 0;
    if (!t->number) t->next_line = f->lines;
    return !read_line(f, &none, t);
}

int dcz_find(const dcz_file *f, const char *name, dcz_tensor *t) {
    memset(t, 0, sizeof *t);
    while (dcz_next(f, t)) {
        size_t i = 0;
        while (i < t->name.size && name[i] && t->name.at[i] == (uint8_t)name[i]) i++;
        if (i == t->name.size && !name[i]) return 1;
    }
    return 0;
}

void dcz_text(const dcz_file *f, size_t i, dcz_part *key, dcz_part *value) {
    source s = dcz_source(f->directory.at, f->directory.size);
    dcz_varint(&s);
    do {
        *key = dcz_text_part(&s);
        *value = dcz_text_part(&s);
    } while (i--);
}

int dcz_graph(const dcz_file *f, void *out, size_t out_size) {
    if (!f->has_graph) return DCZ_MISUSE;
    if (out_size < f->graph_bytes) return DCZ_NO_ROOM;
    if (!dcz_same(dcz_crc_of(f->crc, f->graph.at, f->graph.size), f->graph_crc)) return DCZ_DAMAGED;
    return dcz_inflate(f->graph, out, f->graph_bytes);
}
