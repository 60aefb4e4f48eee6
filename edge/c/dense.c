/* docs/format.md, "Classes": DENSE_RANS. */
#include "inside.h"

enum { AXES = 3, MOST_CLASSES = 8, MOST_TABLES = AXES * (MOST_CLASSES - 1) + 1 };

typedef struct {
    size_t size[AXES], at[AXES];
    uint32_t number[AXES];
    uint8_t *classes[AXES]; /* null where all are 0 */
} axes;

static int read_numbers(axes *x, const dcz_tensor *t, source *s) {
    const size_t numbers = dcz_count(s, (1 << 3 * AXES) - 1);
    if (s->wrong) return DCZ_DAMAGED;
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
    const size_t size = dcz_count(s, dcz_left(s));
    bits b = {dcz_take(s, size), size, 0};
    if (s->wrong) return DCZ_DAMAGED;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        uint32_t top = 0;
        if (x->number[axis] == 1) continue;
        if (!(x->classes[axis] = dcz_cut(a, x->size[axis]))) return DCZ_NO_ROOM;
        for (size_t i = 0; i < x->size[axis]; i++) {
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
        if ((status = dcz_read_frequencies(s, h->entries + 1, &tables[i], a))) return status;
    if ((status = dcz_open_segments(&all, s, t->elements, 0))) return status;
    while (dcz_next_segment(&all, &each)) {
        const size_t used = a->used;
        if ((status = dcz_open_rans(&r, each.streams, each.weights, a))) return status;
        for (size_t i = 0; i < each.weights; i++)
            dcz_put(k, dcz_pop(&r, i, &tables[count == 1 ? 0 : next_table(&x)]));
        if ((status = dcz_close_rans(&r))) return status;
        a->used = used;
    }
    return DCZ_OK;
}

size_t dcz_dense_room(const dcz_tensor *t, source *s, uint32_t alphabet) {
    axes x;
    size_t room = dcz_code_room(MOST_CLASSES) + dcz_rans_room(t->payload.size), tables = 1;
    if (read_numbers(&x, t, s)) return 0;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        tables += x.number[axis] - 1;
        room += x.number[axis] > 1 ? x.size[axis] + 8 : 0;
    }
    return room + tables * dcz_frequencies_room(alphabet);
}
