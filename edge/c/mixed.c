/* docs/format.md, "Context mixing": CONTEXT, around the library's own core.
 *
 * It is a third of the code, and takes a few hundred kB of working memory. With DCZ_WITHOUT_CONTEXT
 * it is left out, and files that have it (those of `--profile best`) are refused. */
#include "inside.h"

#ifdef DCZ_WITHOUT_CONTEXT

size_t dcz_mixed_room(const dcz_tensor *t, source *s, uint32_t entries, uint32_t negative) {
    (void)t, (void)s, (void)entries, (void)negative;
    return 0;
}

int dcz_mixed(const dcz_tensor *t, source *s, const head *h, sink *k, int32_t *levels, arena *a) {
    (void)t, (void)s, (void)h, (void)k, (void)levels, (void)a;
    return DCZ_NEWER;
}

#else

/* Entries in the order of their levels: those without a sign by their bits, then those with one. */
static int before(const void *table, uint32_t i, uint32_t j) {
    const uint32_t *bits = table;
    return bits[i] != bits[j] ? bits[i] < bits[j] : i < j;
}

static int read_shape(const dcz_tensor *t, source *s, dcz_context_shape *shape) {
    const uint32_t rows = t->dimensions > 1 ? (uint32_t)t->shape[0] : 1;
    if (!t->elements || t->elements > 1 << 24) return DCZ_DAMAGED;
    const uint32_t columns = (uint32_t)t->elements / rows, bands = (rows + 255) / 256;
    const uint32_t high = (uint32_t)dcz_count(s, columns), wide = (uint32_t)dcz_count(s, columns);
    shape->rate = dcz_byte(s);
    if (rows + bands * (columns - 1) > 1 << 17) return DCZ_DAMAGED; /* diagonals */
    if (s->wrong || !high || !wide || columns / high % wide || columns % high) return DCZ_DAMAGED;
    shape->rows = rows;
    shape->columns = columns;
    shape->plane_height = high;
    shape->plane_width = wide;
    return shape->rate < 1 || shape->rate > 64 ? DCZ_DAMAGED : DCZ_OK;
}

int dcz_mixed(const dcz_tensor *t, source *s, const head *h, sink *k, int32_t *levels, arena *a) {
    dcz_context_shape shape;
    if (h->width || !h->entries || read_shape(t, s, &shape)) return DCZ_DAMAGED;
    uint32_t *order = dcz_cut(a, 4 * (size_t)h->entries);
    if (!order) return DCZ_NO_ROOM;
    for (uint32_t i = 0; i < h->entries; i++) order[i] = i + 1;
    dcz_sort(order, h->entries, before, h->table);
    shape.positive = 0;
    while (shape.positive < h->entries && !(h->table[order[shape.positive]] >> 31)) shape.positive++;
    shape.negative = h->entries - shape.positive;
    const size_t room = dcz_context_workspace(&shape);
    void *workspace = dcz_cut(a, room);
    if (!workspace) return DCZ_NO_ROOM;
    if (dcz_context_decode(&shape, s->at, dcz_left(s), levels, workspace, room)) return DCZ_DAMAGED;
    for (size_t i = 0; i < t->elements; i++) {
        const int32_t level = levels[i];
        const uint32_t rank = level < 0 ? shape.positive + (uint32_t)-level : (uint32_t)level;
        dcz_put(k, level ? order[rank - 1] : 0);
    }
    return DCZ_OK;
}

size_t dcz_mixed_room(const dcz_tensor *t, source *s, uint32_t entries, uint32_t negative) {
    dcz_context_shape shape;
    if (read_shape(t, s, &shape)) return 0;
    shape.negative = negative;
    shape.positive = entries - negative;
    return 4 * (size_t)entries + 8 + dcz_context_workspace(&shape);
}

#endif
