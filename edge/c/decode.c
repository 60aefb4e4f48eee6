/* docs/format.md, "Modes": a payload to elements, or to indices and a codebook. */
#include "inside.h"

uint32_t dcz_bits(uint32_t entries) {
    uint32_t bits = 0;
    while ((uint64_t)entries >> bits) bits++;
    return bits;
}

uint32_t dcz_index_bytes(uint32_t entries) { return entries < 1 << 8 ? 1 : entries < 1 << 16 ? 2 : 4; }

int dcz_shared(const dcz_tensor *t) {
    return t->mode == DCZ_GAP_SHARED || (t->mode >= DCZ_GAP_RANS && t->mode <= DCZ_CONTEXT);
}

uint32_t dcz_entries(const dcz_tensor *t) {
    source s = dcz_source(t->payload.at, t->payload.size);
    return dcz_shared(t) ? (uint32_t)dcz_count(&s, 1 << 16) : 0;
}

/* Step over the head; how many entries have a sign, and the gaps' width, are found. */
static void skip_head(source *s, uint32_t entries, uint32_t *negative, uint32_t *width) {
    const uint32_t byte = dcz_byte(s), item = byte >> 4 == 1 ? 2 : 4;
    *width = byte & 15;
    *negative = 0;
    if (byte >> 4 == 2) {
        *negative = (uint32_t)dcz_count(s, entries);
        dcz_u32(s);
        return;
    }
    const uint8_t *at = dcz_take(s, item * entries);
    for (uint32_t i = 1; at && i <= entries; i++) *negative += at[item * i - 1] >> 7;
}

/* What decoding takes up to where a damaged payload is found to be so. A few bytes are for what
 * rounding up adds. */
static size_t room_of(const dcz_tensor *t, int indices) {
    const uint32_t entries = dcz_entries(t), alphabet = entries + 1;
    const size_t book = 4 * (size_t)alphabet + 64;
    source s = dcz_source(t->payload.at, t->payload.size);
    uint32_t negative, width;
    if (t->mode == DCZ_RAW || t->mode == DCZ_FP16 || t->mode == DCZ_PACKED) return 0;
    if (dcz_shared(t)) dcz_varint(&s);
    skip_head(&s, entries, &negative, &width);
    if (s.wrong || width > 12 || !t->elements) return book;
    const uint32_t gaps = 1u << width;
    switch (t->mode) {
        case DCZ_GAP_FLOAT: return book + dcz_code_room(gaps);
        case DCZ_GAP_SHARED: return book + dcz_code_room(gaps) + dcz_code_room(alphabet);
        case DCZ_GAP_RANS:
            return book + dcz_frequencies_room(gaps) + dcz_frequencies_room(alphabet) +
                   dcz_rans_room(t->payload.size);
        case DCZ_DENSE_RANS: return book + dcz_dense_room(t, &s, alphabet);
        default: break;
    }
    return book + dcz_mixed_room(t, &s, entries, negative) + (indices ? 4 * t->elements + 8 : 0);
}

size_t dcz_dense_memory(const dcz_tensor *t) { return room_of(t, 0); }

size_t dcz_indices_memory(const dcz_tensor *t) { return dcz_shared(t) ? room_of(t, 1) : 0; }

static int read_raw(const dcz_tensor *t, uint8_t *out) {
    for (size_t i = 0; t->dtype == DCZ_BOOL && i < t->payload.size; i++)
        if (t->payload.at[i] > 1) return DCZ_DAMAGED;
    if (t->payload.size) memcpy(out, t->payload.at, t->payload.size);
    return DCZ_OK;
}

static int read_halves(const dcz_tensor *t, uint8_t *out) {
    int wrong = 0;
    const uint8_t *at = t->payload.at;
    for (size_t i = 0; i < t->elements; i++, at += 2) {
        const uint32_t wide = dcz_widened((uint32_t)(at[0] | at[1] << 8), &wrong);
        memcpy(out + 4 * i, &wide, 4);
    }
    return wrong ? DCZ_DAMAGED : DCZ_OK;
}

static int read_packed(const dcz_tensor *t, source *s, sink *k) {
    const int32_t most = 1 << 24;
    const uint32_t width = dcz_byte(s);
    float step;
    if (dcz_read_step(s, &step)) return DCZ_DAMAGED;
    const uint32_t folded = (uint32_t)dcz_count(s, 2 * (size_t)most - 1);
    if (s->wrong || width > 24 || folded == 1) return DCZ_DAMAGED;
    const int32_t low = folded & 1 ? -(int32_t)(folded / 2) : (int32_t)(folded / 2);
    if (low + (1 << width) >= most) return DCZ_DAMAGED;
    bits b = {s->at, dcz_left(s), 0};
    if (b.size != t->elements / 8 * width + (t->elements % 8 * width + 7) / 8) return DCZ_DAMAGED;
    for (size_t i = 0; i < t->elements; i++)
        dcz_put(k, dcz_product(low + (int32_t)dcz_number(&b, width), step, &s->wrong));
    return s->wrong || !dcz_bits_end(&b) ? DCZ_DAMAGED : DCZ_OK;
}

/* Decode a coded payload; indices, where the codebook shall be apart. levels: where those of CONTEXT
 * may be, else null for working memory. */
static int decode(const dcz_file *f, const dcz_tensor *t, void *out, int indices, int32_t *levels,
                  head *h, arena *a) {
    source s = dcz_source(t->payload.at, t->payload.size);
    const uint32_t index_bytes = dcz_index_bytes(dcz_entries(t));
    sink k = {out, 0, 4, 4, t->elements, f->crc, UINT32_MAX};
    int status;
    if (t->mode == DCZ_PACKED) {
        status = read_packed(t, &s, &k);
    } else {
        if ((status = dcz_read_head(&s, dcz_shared(t), h, a))) return status;
        if (dcz_shared(t)) {
            k.table = indices ? 0 : h->table;
            k.item = indices ? index_bytes : 4;
            k.crc_item = index_bytes;
        }
        if (t->mode == DCZ_CONTEXT && !levels && !(levels = dcz_cut(a, 4 * t->elements)))
            return t->elements ? DCZ_NO_ROOM : DCZ_DAMAGED;
        status = t->mode == DCZ_CONTEXT      ? dcz_mixed(t, &s, h, &k, levels, a)
                 : t->mode == DCZ_DENSE_RANS ? dcz_dense_rans(t, &s, h, &k, a)
                                             : dcz_gaps(t, &s, h, &k, a);
    }
    if (status) return status;
    return k.left || !dcz_same(~k.crc, t->decoded_crc) ? DCZ_DAMAGED : DCZ_OK;
}

int dcz_dense(const dcz_file *f, const dcz_tensor *t, void *out, size_t out_size, void *memory,
              size_t memory_size) {
    arena a = {memory, 0, memory ? memory_size : 0};
    head h;
    if ((uintptr_t)memory % 8 || (uintptr_t)out % dcz_itemsize(t->dtype)) return DCZ_MISUSE;
    if (out_size < t->bytes) return DCZ_NO_ROOM;
    if (!dcz_same(dcz_crc_of(f->crc, t->payload.at, t->payload.size), t->payload_crc))
        return DCZ_DAMAGED;
    if (t->mode == DCZ_RAW) return read_raw(t, out);
    if (t->mode == DCZ_FP16) return read_halves(t, out);
    return decode(f, t, out, 0, out, &h, &a);
}

int dcz_indices(const dcz_file *f, const dcz_tensor *t, void *indices, size_t indices_size,
                float *codebook, size_t codebook_size, void *memory, size_t memory_size) {
    const uint32_t entries = dcz_entries(t), item = dcz_index_bytes(entries);
    arena a = {memory, 0, memory ? memory_size : 0};
    head h;
    if (!dcz_shared(t) || (uintptr_t)memory % 8 || (uintptr_t)indices % item) return DCZ_MISUSE;
    if (indices_size / item < t->elements || codebook_size / 4 < entries) return DCZ_NO_ROOM;
    if (!dcz_same(dcz_crc_of(f->crc, t->payload.at, t->payload.size), t->payload_crc))
        return DCZ_DAMAGED;
    const int status = decode(f, t, indices, 1, 0, &h, &a);
    if (!status && entries) memcpy(codebook, h.table + 1, 4 * (size_t)entries);
    return status;
}

size_t dcz_pack(void *indices, size_t count, uint32_t index_bytes, uint32_t bits) {
    uint8_t *out = indices;
    const uint8_t *in = indices;
    uint64_t window = 0;
    uint32_t held = 0;
    for (size_t i = 0; i < count; i++, in += index_bytes) {
        uint32_t index = 0;
        for (uint32_t b = 0; b < index_bytes; b++) index |= (uint32_t)in[b] << 8 * b;
        window = window << bits | index;
        for (held += bits; held >= 8; held -= 8) *out++ = (uint8_t)(window >> (held - 8));
    }
    if (held) *out++ = (uint8_t)(window << (8 - held));
    return (size_t)(out - (uint8_t *)indices);
}
