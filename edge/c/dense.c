/* docs/format.md, "Classes" and "Context mixing": DENSE_RANS, and CONTEXT around the core. */
#include "inside.h"

enum { AXES = 3, MOST_CLASSES = 8, MOST_TABLES = AXES * (MOST_CLASSES - 1) + 1 };

typedef struct {
    uint64_t size[AXES], at[AXES];
    uint32_t number[AXES];
    uint8_t *classes[AXES]; /* null where all are 0 */
} axes;

static int read_numbers(axes *x, const dcz_tensor *t, source *s) {
    const uint64_t numbers = dcz_varint(s);
    if (s->wrong || numbers >> 3 * AXES) return DCZ_DAMAGED;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        x->size[axis] = axis < t->dimensions ? t->shape[axis] : 1;
        for (uint32_t d = AXES; axis == AXES - 1 && d < t->dimensions; d++) x->size[axis] *= t->shape[d];
        x->number[axis] = 1 + (numbers >> 3 * axis & 7);
        if (x->number[axis] > x->size[axis]) return DCZ_DAMAGED;
    }
    return DCZ_OK;
}

static int read_classes(axes *x, source *s, arena *a) {
    uint32_t most = 1;
    for (uint32_t axis = 0; axis < AXES; axis++) most = x->number[axis] > most ? x->number[axis] : most;
    if (most == 1) return DCZ_OK;
    code c;
    const int status = dcz_read_code(s, most, &c, a);
    if (status) return status;
    const uint64_t size = dcz_varint(s);
    bits b = {dcz_take(s, size), size, 0};
    if (s->wrong) return DCZ_DAMAGED;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        uint32_t top = 0;
        if (x->number[axis] == 1) continue;
        if (!(x->classes[axis] = dcz_cut(a, x->size[axis]))) return DCZ_NO_ROOM;
        for (uint64_t i = 0; i < x->size[axis]; i++) {
            const uint32_t found = dcz_symbol(&c, &b);
            x->classes[axis][i] = (uint8_t)found;
            top = found > top ? found : top;
        }
        if (top != x->number[axis] - 1) return DCZ_DAMAGED;
    }
    return dcz_bits_end(&b) ? DCZ_OK : DCZ_DAMAGED;
}

/* The table of the next weight. */
static uint32_t next_table(axes *x) {
    uint32_t sum = 0;
    for (uint32_t axis = 0; axis < AXES; axis++)
        if (x->classes[axis]) sum += x->classes[axis][x->at[axis]];
    for (uint32_t axis = AXES; axis-- > 0 && ++x->at[axis] == x->size[axis];) x->at[axis] = 0;
    return sum;
}

int dcz_dense_rans(const dcz_tensor *t, source *s, const head *h, sink *k, arena *a) {
    frequencies tables[MOST_TABLES];
    axes x = {{0}, {0}, {0}, {0}};
    segments all;
    segment each;
    rans r;
    int status;
    if (h->width || !t->elements) return DCZ_DAMAGED;
    if ((status = read_numbers(&x, t, s)) || (status = read_classes(&x, s, a))) return status;
    const uint32_t count = x.number[0] + x.number[1] + x.number[2] - 2;
    for (uint32_t i = 0; i < count; i++)
        if ((status = dcz_read_frequencies(s, (uint64_t)h->entries + 1, &tables[i], a))) return status;
    if ((status = dcz_open_segments(&all, s, t->elements, 0))) return status;
    while (dcz_next_segment(&all, &each)) {
        const size_t used = a->used;
        if ((status = dcz_open_rans(&r, each.streams, each.weights, a))) return status;
        for (uint64_t i = 0; i < each.weights; i++)
            dcz_put(k, dcz_pop(&r, i, &tables[count == 1 ? 0 : next_table(&x)]));
        if ((status = dcz_close_rans(&r))) return status;
        a->used = used;
    }
    return DCZ_OK;
}

uint64_t dcz_dense_room(const dcz_tensor *t, source *s, uint64_t alphabet) {
    axes x;
    uint64_t room = dcz_code_room(MOST_CLASSES) + dcz_rans_room(t->payload.size), tables = 1;
    if (read_numbers(&x, t, s)) return 0;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        tables += x.number[axis] - 1;
        room += x.number[axis] > 1 ? x.size[axis] + 8 : 0;
    }
    return room + tables * dcz_frequencies_room(alphabet);
}

/* Entries in the order of their levels: those without a sign by their bits, then those with one. */
static int before(const void *table, uint32_t i, uint32_t j) {
    const uint32_t *bits = table;
    return bits[i] != bits[j] ? bits[i] < bits[j] : i < j;
}

int dcz_context_shape_of(const dcz_tensor *t, source *s, dcz_context_shape *shape) {
    const uint64_t rows = t->dimensions > 1 ? t->shape[0] : 1;
    const uint64_t high = dcz_varint(s), wide = dcz_varint(s);
    shape->rate = dcz_byte(s);
    if (s->wrong || !t->elements || t->elements > 1 << 24) return DCZ_DAMAGED;
    const uint64_t columns = t->elements / rows, bands = (rows + 255) / 256;
    if (rows + bands * (columns - 1) > 1 << 17) return DCZ_DAMAGED; /* diagonals */
    if (!high || !wide || high > columns || wide > columns || columns % (high * wide)) return DCZ_DAMAGED;
    shape->rows = rows;
    shape->columns = columns;
    shape->plane_height = high;
    shape->plane_width = wide;
    return shape->rate < 1 || shape->rate > 64 ? DCZ_DAMAGED : DCZ_OK;
}

int dcz_context_mode(const dcz_tensor *t, source *s, const head *h, sink *k, int32_t *levels, arena *a) {
    dcz_context_shape shape;
    if (h->width || !h->entries || dcz_context_shape_of(t, s, &shape)) return DCZ_DAMAGED;
    uint32_t *order = dcz_cut(a, 4 * (uint64_t)h->entries);
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
    for (uint64_t i = 0; i < t->elements; i++) {
        const int32_t level = levels[i];
        const uint32_t rank = level < 0 ? shape.positive + (uint32_t)-level : (uint32_t)level;
        dcz_put(k, level ? order[rank - 1] : 0);
    }
    return DCZ_OK;
}
