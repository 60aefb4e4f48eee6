#include "context.h"

#include <string.h>

/* Sizes and constants of the model; all of them stand in docs/format.md. */
enum {
    LANES = 256,  /* rows of a band, and so most weights of one diagonal */
    INPUTS = 6,   /* contexts of a flag */
    BUCKETS = 8,  /* of how often a slot was seen */
    NODES = 68,   /* flags of a magnitude: 4 for each number of bits */
    KINDS = 4,    /* weight sets of the zero flag */
    UNIT = 64,    /* what one flag adds to a count */
    FULL = 16000, /* counts of a slot are halved above this */
    PRIOR = 32,   /* weight of the flag's own statistics in a slot's */
    LIMIT = 3583, /* largest log-odds */
    HEAVY = 10800,
    LIGHT = 3600,
    OWN = 4000,    /* initial weights of slots seen, of slots hardly seen, of the flag itself */
    HEAVIEST = 1 << 20,
    CHANNELS = 1 << 12,
    ROWS = 1 << 10,
    COLUMNS = 1 << 12,
    DOUBTS = 3584,
    SMALL = 1 << 14 /* counts, with what is added to them, are below this */
};

static const uint8_t LOGS[256] = {
    0, 1, 3, 4, 6, 7, 9, 10, 11, 13, 14, 16, 17, 18, 20, 21,
    22, 24, 25, 26, 28, 29, 30, 32, 33, 34, 36, 37, 38, 40, 41, 42,
    44, 45, 46, 47, 49, 50, 51, 52, 54, 55, 56, 57, 59, 60, 61, 62,
    63, 65, 66, 67, 68, 69, 71, 72, 73, 74, 75, 77, 78, 79, 80, 81,
    82, 84, 85, 86, 87, 88, 89, 90, 92, 93, 94, 95, 96, 97, 98, 99,
    100, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 116, 117,
    118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133,
    134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149,
    150, 151, 152, 153, 154, 155, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164,
    165, 166, 167, 168, 169, 169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 178,
    179, 180, 181, 182, 183, 184, 185, 185, 186, 187, 188, 189, 190, 191, 192, 192,
    193, 194, 195, 196, 197, 198, 198, 199, 200, 201, 202, 203, 203, 204, 205, 206,
    207, 208, 208, 209, 210, 211, 212, 212, 213, 214, 215, 216, 216, 217, 218, 219,
    220, 220, 221, 222, 223, 224, 224, 225, 226, 227, 228, 228, 229, 230, 231, 231,
    232, 233, 234, 234, 235, 236, 237, 238, 238, 239, 240, 241, 241, 242, 243, 244,
    244, 245, 246, 247, 247, 248, 249, 249, 250, 251, 252, 252, 253, 254, 255, 255};

/* 2^(16 + i/256), less 2^16. */
static const uint16_t POWERS[256] = {
    0, 178, 356, 535, 714, 893, 1073, 1254, 1435, 1617, 1799, 1981, 2164, 2348,
    2532, 2716, 2902, 3087, 3273, 3460, 3647, 3834, 4022, 4211, 4400, 4590, 4780, 4971,
    5162, 5353, 5546, 5738, 5932, 6125, 6320, 6514, 6710, 6906, 7102, 7299, 7496, 7694,
    7893, 8092, 8292, 8492, 8693, 8894, 9096, 9298, 9501, 9704, 9908, 10113, 10318, 10524,
    10730, 10937, 11144, 11352, 11560, 11769, 11979, 12189, 12400, 12611, 12823, 13036, 13249, 13462,
    13676, 13891, 14106, 14322, 14539, 14756, 14974, 15192, 15411, 15630, 15850, 16071, 16292, 16514,
    16737, 16960, 17183, 17408, 17633, 17858, 18084, 18311, 18538, 18766, 18995, 19224, 19454, 19684,
    19915, 20147, 20379, 20612, 20846, 21080, 21315, 21550, 21786, 22023, 22260, 22498, 22737, 22977,
    23216, 23457, 23698, 23940, 24183, 24426, 24670, 24915, 25160, 25406, 25652, 25900, 26148, 26396,
    26645, 26895, 27146, 27397, 27649, 27902, 28155, 28409, 28664, 28919, 29175, 29432, 29690, 29948,
    30207, 30466, 30727, 30988, 31249, 31512, 31775, 32039, 32303, 32568, 32834, 33101, 33369, 33637,
    33906, 34175, 34446, 34717, 34988, 35261, 35534, 35808, 36083, 36359, 36635, 36912, 37190, 37468,
    37747, 38028, 38308, 38590, 38872, 39155, 39439, 39724, 40009, 40295, 40582, 40870, 41158, 41448,
    41738, 42029, 42320, 42613, 42906, 43200, 43495, 43790, 44087, 44384, 44682, 44981, 45280, 45581,
    45882, 46184, 46487, 46791, 47095, 47401, 47707, 48014, 48322, 48631, 48940, 49251, 49562, 49874,
    50187, 50500, 50815, 51131, 51447, 51764, 52082, 52401, 52721, 53041, 53363, 53685, 54008, 54333,
    54658, 54983, 55310, 55638, 55966, 56296, 56626, 56957, 57289, 57622, 57956, 58291, 58627, 58964,
    59301, 59640, 59979, 60319, 60661, 61003, 61346, 61690, 62035, 62381, 62727, 63075, 63424, 63774,
    64124, 64476, 64828, 65182};

/* The zeros seen, and above them, from bit 16 on, the ones. One number, since what was written in
 * part is slow to read as a whole. */
typedef uint32_t slot;

static inline uint32_t zeros_of(slot s) { return s & 0xFFFF; }

static inline uint32_t ones_of(slot s) { return s >> 16; }

/* Statistics and mixer of one kind of flag. Input i has the slots base[i] + context * nodes + node:
 * flags of one weight lie side by side. */
typedef struct {
    slot *slots;
    slot *own;
    int32_t (*weights)[INPUTS + 1][BUCKETS];
    uint32_t base[INPUTS];
    uint32_t nodes;
} mixer;

/* A flag of one lane that waits for the end of the stage: the slots, weights and odds of its inputs,
 * and its own after them. Without inputs it is even, and nothing is learnt of it. */
typedef struct {
    slot *slots[INPUTS + 1];
    int32_t *weights[INPUTS + 1];
    int32_t odds[INPUTS + 1];
    uint32_t inputs, chance, bit, lane, over;
} flag;

/* The neighbours of a weight that are known before it: 0 outside of the matrix, and for those in the
 * kernel outside of the plane. */
typedef struct {
    int32_t left, left2, up, up2, channel, channel2;
    int32_t west, west2, north, north2, northwest, northeast;
} neighbours;

/* A row of the band: where its next weight is, and what is known of that. */
typedef struct {
    uint32_t row, column, channel, place, x, y;
    neighbours near;
    int32_t level, magnitude;
    uint32_t local, scale, around, pattern, exact;
    uint32_t depth, bits, value, most;
    slot *slots[INPUTS]; /* of the magnitude's first node */
} lane;

/* What all weights of one channel, or of one place, have been. */
typedef struct {
    uint64_t sum; /* of magnitudes */
    uint32_t count; /* of weights */
} tally;

/* What grows with the shape, so that small matrices need little memory; it lies behind the state. */
typedef struct {
    slot *slots[3], *own[3]; /* of the zero flag, of the sign, of the magnitude */
    int32_t (*weights[3])[INPUTS + 1][BUCKETS];
    tally *channels, *places;
    flag *flags;
    lane *lanes;
    size_t end; /* bytes up to here */
} parts;

typedef struct {
    parts of;
    uint64_t row_sum[LANES];
    uint64_t sum;
    uint32_t count;
    uint32_t kept[LANES];
    uint16_t chances[DOUBTS];
    uint16_t logs[SMALL];
    uint8_t buckets[SMALL / UNIT];
    mixer mixers[3];
} state;

typedef struct {
    uint32_t low, high, code;
    const uint8_t *in;
    uint8_t *out;
    size_t size, position;
    int decoding, full;
} coder;

/* floor(x / 2^bits) for |x| up to 2^62, which >> of a negative number need not be. */
static int64_t floor_shift(int64_t x, uint32_t bits) {
    const uint64_t shift = (uint64_t)1 << 62;
    return (int64_t)(((uint64_t)x + shift) >> bits) - (int64_t)(shift >> bits);
}

/* Number of bits of x; of 0 none. */
static uint32_t length_of(uint32_t x) {
#if defined(__GNUC__)
    return x ? 32 - (uint32_t)__builtin_clz(x) : 0;
#else
    uint32_t bits = 0;
    while (x >> bits) bits++;
    return bits;
#endif
}

/* 256 log2(x) for x in 1..65535, by the 8 bits after the first. */
static int32_t log_of(uint32_t x) {
    uint32_t top = length_of(x) - 1;
    return (int32_t)(256 * top + LOGS[((x << (15 - top)) >> 7) & 255]);
}

static int32_t log_mean(uint64_t sum, uint32_t count) {
    /* Numbers of 32 bits, which nearly all are, divide faster. */
    const uint64_t x = 1 + (sum >> 32 ? sum / (count + 1ull) : (uint32_t)sum / (count + 1));
    return log_of(x > 65535 ? 65535 : (uint32_t)x);
}

/* How many of the edges 1, 2, 4, 8, 20, 60, 250 the number of flags seen has reached. */
static uint8_t bucket_of(uint32_t seen) {
    if (seen < 8) return (uint8_t)length_of(seen);
    return (uint8_t)(4 + (seen >= 20) + (seen >= 60) + (seen >= 250));
}

static void init_mixer(mixer *m, slot *slots, slot *own, int32_t (*weights)[INPUTS + 1][BUCKETS],
                       uint32_t sets, uint32_t nodes, const uint32_t *width, uint32_t inputs) {
    uint32_t size = 0;
    m->slots = slots;
    m->own = own;
    m->weights = weights;
    m->nodes = nodes;
    for (uint32_t i = 0; i < inputs; i++) {
        m->base[i] = size;
        size += nodes * width[i];
    }
    memset(slots, 0, size * sizeof *slots);
    memset(own, 0, nodes * sizeof *own);
    for (uint32_t s = 0; s < sets; s++) {
        for (uint32_t i = 0; i < inputs; i++)
            for (uint32_t b = 0; b < BUCKETS; b++) weights[s][i][b] = b < 2 ? LIGHT : HEAVY;
        weights[s][inputs][0] = OWN;
    }
}

static void init_tables(state *s) {
    for (uint32_t x = 0; x < DOUBTS; x++) {
        uint64_t odds = (65536ull + POWERS[x & 255]) << (x >> 8);
        s->chances[x] = (uint16_t)(((uint64_t)1 << 32) / (65536 + odds));
    }
    s->logs[0] = 0;
    for (uint32_t x = 1; x < 512; x++) s->logs[x] = (uint16_t)log_of(x);
    for (uint32_t x = 512; x < SMALL;) {
        const uint16_t log = (uint16_t)log_of(x); /* of as many numbers as there are 256ths in x */
        for (uint32_t end = x + (1u << (length_of(x) - 9)); x < end; x++) s->logs[x] = log;
    }
    for (uint32_t seen = 0; seen < SMALL / UNIT; seen++) s->buckets[seen] = bucket_of(seen);
}

/* How many contexts each input of the three kinds of flags has, and how many nodes each kind. */
typedef struct {
    uint32_t width[3][INPUTS], inputs[3], nodes[3], sets[3], columns;
} extent;

static extent reach(const dcz_context_shape *shape) {
    const uint32_t columns = (uint32_t)(shape->columns < COLUMNS ? shape->columns : COLUMNS);
    const uint32_t rows = (uint32_t)(shape->rows < ROWS ? shape->rows : ROWS);
    const uint32_t largest = shape->positive > shape->negative ? shape->positive : shape->negative;
    const uint32_t nodes = 4 * length_of(largest);
    const extent found = {{{128, 43 * 32, columns, rows, 81, 512},
                           {81, rows, columns, 81, 27 * 64, 0},
                           {128, 43 * 32, columns, rows, 81, 512}},
                          {6, 5, 6},
                          {1, 1, nodes},
                          {KINDS, 1, nodes},
                          columns};
    return found;
}

/* The next part of the workspace; without one, nowhere. */
static void *cut(void *workspace, size_t *end, size_t size) {
    void *at = workspace ? (uint8_t *)workspace + *end : 0;
    *end += (size + 7) / 8 * 8;
    return at;
}

static parts lay_out(void *workspace, const dcz_context_shape *shape) {
    const extent e = reach(shape);
    const size_t lanes = shape->rows < LANES ? (size_t)shape->rows : LANES;
    size_t end = sizeof(state);
    parts p;
    for (uint32_t kind = 0; kind < 3; kind++) {
        size_t slots = 0;
        for (uint32_t i = 0; i < e.inputs[kind]; i++) slots += e.nodes[kind] * e.width[kind][i];
        p.slots[kind] = cut(workspace, &end, slots * sizeof *p.slots[kind]);
        p.own[kind] = cut(workspace, &end, e.nodes[kind] * sizeof *p.own[kind]);
        p.weights[kind] = cut(workspace, &end, e.sets[kind] * sizeof *p.weights[kind]);
    }
    p.channels = cut(workspace, &end, e.columns * sizeof *p.channels);
    p.places = cut(workspace, &end, e.columns * sizeof *p.places);
    p.flags = cut(workspace, &end, lanes * sizeof *p.flags);
    p.lanes = cut(workspace, &end, lanes * sizeof *p.lanes);
    p.end = end;
    return p;
}

/* Start with nothing learnt. */
static void init_state(state *s, const dcz_context_shape *shape) {
    const extent e = reach(shape);
    s->of = lay_out(s, shape);
    for (uint32_t kind = 0; kind < 3; kind++)
        init_mixer(&s->mixers[kind], s->of.slots[kind], s->of.own[kind], s->of.weights[kind],
                   e.sets[kind], e.nodes[kind], e.width[kind], e.inputs[kind]);
    memset(s->of.channels, 0, e.columns * sizeof *s->of.channels);
    memset(s->of.places, 0, e.columns * sizeof *s->of.places);
    s->sum = s->count = 0;
    init_tables(s);
}

/* Code one flag of a lane; in decoding the bit is read. */
static uint32_t code_bit(coder *c, uint32_t chance, uint32_t bit) {
    uint32_t range = c->high - c->low;
    uint32_t middle = c->low + (uint32_t)(((uint64_t)range * chance) >> 16);
    if (c->decoding) bit = c->code <= middle;
    /* Without a branch, which would go wrong as often as the flag is news. */
    const uint32_t set = 0 - bit;
    c->high = (middle & set) | (c->high & ~set);
    c->low = (c->low & set) | ((middle + 1) & ~set);
    while (!((c->low ^ c->high) >> 24)) {
        if (c->decoding) {
            uint32_t next = c->position + 4 < c->size ? c->in[c->position + 4] : 0;
            c->code = c->code << 8 | next;
        } else if (c->position < c->size) {
            c->out[c->position] = (uint8_t)(c->high >> 24);
        } else {
            c->full = 1;
        }
        c->position++;
        c->low <<= 8;
        c->high = c->high << 8 | 255;
    }
    return bit;
}

/* The slots of a context's first node, for each input. */
static inline void find_slots(const mixer *m, const uint32_t *contexts, slot **at,
                              const uint32_t inputs) {
    for (uint32_t i = 0; i < inputs; i++)
        at[i] = m->slots + (m->base[i] + contexts[i] * m->nodes);
}

/* Predict a flag: mix the odds of its slots, which are node slots behind those of at. */
static inline void predict(const state *s, const mixer *m, flag *f, uint32_t set, uint32_t node,
                           slot *const *at, const uint32_t inputs) {
    int32_t(*weights)[BUCKETS] = m->weights[set];
    slot *own = &m->own[node];
    const uint32_t ones = ones_of(*own) + UNIT / 2u, zeros = zeros_of(*own) + UNIT / 2u;
    uint32_t one = PRIOR * ones / (ones + zeros);
    int64_t dot;
    one = one < 1 ? 1 : one > PRIOR - 1 ? PRIOR - 1 : one;
    const uint32_t zero = PRIOR - one;
    f->inputs = inputs;
    f->slots[inputs] = own;
    f->weights[inputs] = &weights[inputs][0];
    f->odds[inputs] = (int32_t)s->logs[ones] - s->logs[zeros];
    dot = (int64_t)weights[inputs][0] * f->odds[inputs];
    for (uint32_t i = 0; i < inputs; i++) {
        slot *found = at[i] + node;
        const slot seen = *found;
        const uint32_t bucket = s->buckets[(ones_of(seen) + zeros_of(seen)) / UNIT];
        f->slots[i] = found;
        f->weights[i] = &weights[i][bucket];
        f->odds[i] = (int32_t)s->logs[ones_of(seen) + one] - s->logs[zeros_of(seen) + zero];
        dot += (int64_t)weights[i][bucket] * f->odds[i];
    }
    dot = floor_shift(dot, 16);
    const uint32_t far = s->chances[dot > LIMIT || dot < -LIMIT ? LIMIT : dot < 0 ? -dot : dot];
    f->chance = dot >= 0 ? 65536u - far : far;
}

static void halve(slot *s) {
    uint32_t zeros = zeros_of(*s), ones = ones_of(*s);
    while (zeros + ones > FULL) {
        zeros -= zeros >> 1;
        ones -= ones >> 1;
    }
    *s = zeros | ones << 16;
}

static inline uint32_t learn_flag(const flag *f, uint32_t rate, const uint32_t inputs) {
    const int64_t error = (((int64_t)f->bit << 16) - f->chance) * rate;
    const slot unit = f->bit ? (slot)UNIT << 16 : UNIT;
    uint32_t over = 0;
    for (uint32_t i = 0; i <= inputs; i++) {
        const slot seen = *f->slots[i] + unit;
        const int32_t weight = *f->weights[i] + (int32_t)floor_shift(error * f->odds[i], 20);
        *f->weights[i] = weight;
        *f->slots[i] = seen;
        over |= (uint32_t)(weight + HEAVIEST) > 2 * HEAVIEST;
        over |= ones_of(seen) + zeros_of(seen) > FULL;
    }
    return over;
}

static void bound(const flag *f) {
    for (uint32_t i = 0; i <= f->inputs; i++) {
        int32_t *w = f->weights[i];
        if (*w > HEAVIEST) *w = HEAVIEST;
        if (*w < -HEAVIEST) *w = -HEAVIEST;
        halve(f->slots[i]);
    }
}

/* Learn from all flags of a stage at once: sums first, then bounds. Whatever ends out of bounds is
 * so for the last flag that changed it, so the flags that did not see it need not look again. */
static void learn(flag *flags, uint32_t count, uint32_t rate) {
    uint32_t over = 0;
    for (uint32_t k = 0; k < count; k++) {
        flag *f = &flags[k];
        if (f->inputs == 6)
            f->over = learn_flag(f, rate, 6);
        else
            f->over = f->inputs ? learn_flag(f, rate, f->inputs) : 0;
        over |= f->over;
    }
    for (uint32_t k = 0; over && k < count; k++)
        if (flags[k].over) bound(&flags[k]);
}

typedef struct {
    const dcz_context_shape *shape;
    int32_t *levels;
    state *s;
    coder c;
} job;

static uint32_t size_of(int32_t level) { return (uint32_t)(level < 0 ? -level : level); }

static uint32_t at_most(uint32_t x, uint32_t most) { return x < most ? x : most; }

static uint32_t sign_of(int32_t level) { return level > 0 ? 2 : level < 0 ? 1 : 0; }

static neighbours look(const job *j, const lane *l) {
    const size_t columns = (size_t)j->shape->columns, wide = (size_t)j->shape->plane_width;
    const size_t plane = wide * (size_t)j->shape->plane_height, c = l->column;
    const uint32_t x = l->x, y = l->y;
    const int32_t *at = j->levels + l->row * columns + c;
    neighbours n;
    n.left = c > 0 ? at[-1] : 0;
    n.left2 = c > 1 ? at[-2] : 0;
    n.up = l->row > 0 ? *(at - columns) : 0;
    n.up2 = l->row > 1 ? *(at - 2 * columns) : 0;
    n.channel = c >= plane ? *(at - plane) : 0;
    n.channel2 = c >= 2 * plane ? *(at - 2 * plane) : 0;
    n.west = x > 0 ? at[-1] : 0;
    n.west2 = x > 1 ? at[-2] : 0;
    n.north = y > 0 ? *(at - wide) : 0;
    n.north2 = y > 1 ? *(at - 2 * wide) : 0;
    n.northwest = x > 0 && y > 0 ? *(at - wide - 1) : 0;
    n.northeast = x + 1 < wide && y > 0 ? *(at - wide + 1) : 0;
    return n;
}

/* What the contexts of the zero flag and of the magnitude are made of; mean is 256 times that of all
 * magnitudes so far, and level its logarithm. */
static void survey(const state *s, lane *l, uint64_t mean, int32_t level) {
    const neighbours *n = &l->near;
    const uint32_t channel = l->channel % CHANNELS, place = l->place % CHANNELS;
    const int32_t scale = log_mean(256 * s->row_sum[l->row % LANES] + mean, l->column) +
                          log_mean(256 * s->of.channels[channel].sum + mean, s->of.channels[channel].count) +
                          log_mean(256 * s->of.places[place].sum + mean, s->of.places[place].count) -
                          2 * level;
    uint32_t around = 3 * size_of(n->up) + size_of(n->up2); /* of magnitudes up to 2^16 */
    around += 2 * (size_of(n->left) + size_of(n->channel) + size_of(n->north));
    around += size_of(n->left2) + size_of(n->channel2) + size_of(n->northwest);
    around += size_of(n->northeast) + size_of(n->west2) + size_of(n->north2);
    l->scale = scale < 0 ? 0 : at_most((uint32_t)scale * 6 / 256, 127);
    l->local = around < 12 ? around
                           : at_most(12 + (uint32_t)(log_mean(around - 1, 0) - log_of(12)) * 6 / 256, 63);
    l->around = at_most(size_of(n->left), 2) + 3 * at_most(size_of(n->up), 2) +
                9 * at_most(size_of(n->channel), 2) + 27 * at_most(size_of(n->north), 2);
    l->pattern = (uint32_t)((n->west != 0) | (n->north != 0) << 1 | (n->northwest != 0) << 2 |
                            (n->northeast != 0) << 3 | (n->west2 != 0) << 4 | (n->north2 != 0) << 5 |
                            (n->up != 0) << 6 | (n->up2 != 0) << 7 | (n->channel != 0) << 8);
    l->exact = at_most(size_of(n->left), 7) + 8 * at_most(size_of(n->up), 7) +
               64 * at_most(size_of(n->north), 7);
}

static void predict_zero(const state *s, const lane *l, flag *f) {
    const uint32_t contexts[INPUTS] = {l->scale,
                                       l->scale / 3 * 32 + l->local / 2,
                                       l->column % COLUMNS,
                                       l->row % ROWS,
                                       l->around,
                                       l->pattern};
    const uint32_t set = l->local > 20 ? 3 : l->local > 6 ? 2 : l->local > 0 ? 1 : 0;
    slot *at[INPUTS];
    find_slots(&s->mixers[0], contexts, at, 6);
    predict(s, &s->mixers[0], f, set, 0, at, 6);
}

static void predict_sign(const state *s, const lane *l, flag *f) {
    const neighbours *n = &l->near;
    const uint32_t contexts[INPUTS] = {
        sign_of(n->west) + 3 * sign_of(n->north) + 9 * sign_of(n->northwest) +
            27 * sign_of(n->northeast),
        l->row % ROWS,
        l->column % COLUMNS,
        sign_of(n->left) + 3 * sign_of(n->left2) + 9 * sign_of(n->up) + 27 * sign_of(n->up2),
        sign_of(n->channel) + 3 * sign_of(n->channel2) + 9 * sign_of(n->north) +
            27 * (l->place % 64)};
    slot *at[INPUTS];
    find_slots(&s->mixers[1], contexts, at, 5);
    predict(s, &s->mixers[1], f, 0, 0, at, 5);
}

/* The flags of a magnitude m: first how many bits it has after its first, one by one, then those
 * bits, of which two are modelled. Depth counts the bits that are left. */
enum { UNARY = 32 };

static void predict_size(const state *s, const lane *l, flag *f) {
    const uint32_t node = 4 * l->bits + (l->depth >= UNARY ? 0 : l->value);
    if (l->depth < UNARY && l->value >= 4) {
        f->inputs = 0;
        f->chance = 32768;
        return;
    }
    predict(s, &s->mixers[2], f, node, node, l->slots, 6);
}

/* All flags of a magnitude have the same contexts. */
static void start_size(const state *s, lane *l, uint32_t most) {
    const uint32_t contexts[INPUTS] = {l->scale,
                                       l->scale / 3 * 32 + l->local / 2,
                                       l->column % COLUMNS,
                                       l->row % ROWS,
                                       l->around,
                                       l->exact};
    find_slots(&s->mixers[2], contexts, l->slots, 6);
    l->most = most;
    l->bits = 0;
    l->value = 1;
    l->depth = most ? UNARY : 0;
}

/* Whether the flag that comes next is set, in encoding. */
static uint32_t wanted(const lane *l) {
    if (l->depth >= UNARY) return (uint32_t)l->magnitude >> (l->bits + 1) != 0;
    return (uint32_t)l->magnitude >> (l->depth - 1) & 1;
}

static void take_size(lane *l, uint32_t bit) {
    if (l->depth < UNARY) {
        l->value = 2 * l->value + bit;
        l->depth--;
        return;
    }
    l->bits += bit;
    if (!bit || l->bits == l->most) l->depth = l->bits;
}

/* Each stage predicts all of its flags, then codes them, then learns: three loops, so that a flag
 * that comes unexpected does not hold up the others' predictions. */
static void code_sizes(job *j, lane *lanes, uint32_t count) {
    state *s = j->s;
    const uint32_t top[2] = {length_of(j->shape->positive) - 1, length_of(j->shape->negative) - 1};
    uint32_t left = 0; /* lanes that have a flag left, in their order */
    for (uint32_t k = 0; k < count; k++) {
        lane *l = &lanes[s->kept[k]];
        start_size(s, l, top[l->level < 0]);
        s->of.flags[left].lane = s->kept[k];
        left += l->depth > 0;
    }
    while (left) {
        const uint32_t flags = left;
        for (uint32_t k = 0; k < flags; k++)
            predict_size(s, &lanes[s->of.flags[k].lane], &s->of.flags[k]);
        for (uint32_t k = 0; k < flags; k++) {
            flag *f = &s->of.flags[k];
            lane *l = &lanes[f->lane];
            f->bit = code_bit(&j->c, f->chance, j->c.decoding ? 0 : wanted(l));
            take_size(l, f->bit);
        }
        learn(s->of.flags, flags, j->shape->rate);
        left = 0;
        for (uint32_t k = 0; k < flags; k++) {
            const uint32_t next = s->of.flags[k].lane;
            s->of.flags[left].lane = next;
            left += lanes[next].depth > 0;
        }
    }
}

static void code_signs(job *j, lane *lanes, uint32_t count) {
    state *s = j->s;
    const dcz_context_shape *shape = j->shape;
    if (!shape->positive || !shape->negative) {
        for (uint32_t k = 0; k < count; k++) lanes[s->kept[k]].level = shape->positive ? 1 : -1;
        return;
    }
    for (uint32_t k = 0; k < count; k++) predict_sign(s, &lanes[s->kept[k]], &s->of.flags[k]);
    for (uint32_t k = 0; k < count; k++) {
        flag *f = &s->of.flags[k];
        lane *l = &lanes[s->kept[k]];
        f->bit = code_bit(&j->c, f->chance, l->level < 0);
        l->level = 1 - 2 * (int32_t)f->bit;
    }
    learn(s->of.flags, count, shape->rate);
}

/* Return how many lanes are not zero; s->kept lists them. */
static uint32_t code_zeros(job *j, lane *lanes, uint32_t count) {
    state *s = j->s;
    uint32_t kept = 0;
    const uint64_t mean = 256 * s->sum / (s->count + 1ull);
    const int32_t level = log_mean(mean, 0);
    for (uint32_t k = 0; k < count; k++) {
        lane *l = &lanes[k];
        l->level = j->c.decoding ? 0 : j->levels[l->row * (size_t)j->shape->columns + l->column];
        l->magnitude = (int32_t)size_of(l->level);
        l->near = look(j, l);
        survey(s, l, mean, level);
        predict_zero(s, l, &s->of.flags[k]);
    }
    for (uint32_t k = 0; k < count; k++) {
        flag *f = &s->of.flags[k];
        f->bit = code_bit(&j->c, f->chance, lanes[k].level != 0);
        if (j->c.decoding) lanes[k].level = (int32_t)f->bit;
        s->kept[kept] = k;
        kept += f->bit;
    }
    learn(s->of.flags, count, j->shape->rate);
    return kept;
}

static void step_on(const dcz_context_shape *shape, lane *l) {
    l->column++;
    l->place++;
    if (++l->x < shape->plane_width) return;
    l->x = 0;
    if (++l->y < shape->plane_height) return;
    l->y = l->place = 0;
    l->channel++;
}

static int code_diagonal(job *j, lane *lanes, uint32_t count) {
    state *s = j->s;
    const dcz_context_shape *shape = j->shape;
    const uint32_t kept = code_zeros(j, lanes, count);
    code_signs(j, lanes, kept);
    code_sizes(j, lanes, kept);
    for (uint32_t k = 0; k < count; k++) {
        lane *l = &lanes[k];
        const uint32_t channel = l->channel % CHANNELS, place = l->place % CHANNELS;
        const uint32_t size = l->level ? l->value : 0;
        if (size > (l->level < 0 ? shape->negative : shape->positive)) return DCZ_RANGE;
        if (j->c.decoding)
            j->levels[l->row * (size_t)shape->columns + l->column] =
                l->level < 0 ? -(int32_t)size : (int32_t)size;
        s->row_sum[l->row % LANES] += size;
        s->of.channels[channel].sum += size;
        s->of.channels[channel].count++;
        s->of.places[place].sum += size;
        s->of.places[place].count++;
        s->sum += size;
        s->count++;
        step_on(shape, l);
    }
    return j->c.full ? DCZ_NO_ROOM : DCZ_OK;
}

static int code_all(job *j) {
    state *s = j->s;
    const uint32_t rows = (uint32_t)j->shape->rows, columns = (uint32_t)j->shape->columns;
    init_state(s, j->shape);
    for (uint32_t first = 0; first < rows; first += LANES) {
        const uint32_t band = rows - first < LANES ? rows - first : LANES;
        memset(s->row_sum, 0, sizeof s->row_sum);
        memset(s->of.lanes, 0, band * sizeof *s->of.lanes);
        for (uint32_t r = 0; r < band; r++) s->of.lanes[r].row = first + r;
        for (uint32_t diagonal = 0; diagonal < band + columns - 1; diagonal++) {
            const uint32_t from = diagonal < columns ? 0 : diagonal - columns + 1;
            const uint32_t to = diagonal < band ? diagonal + 1 : band;
            const int status = code_diagonal(j, s->of.lanes + from, to - from);
            if (status) return status;
        }
    }
    return DCZ_OK;
}

static int usable(const dcz_context_shape *shape, const void *workspace, size_t workspace_size) {
    const uint64_t most = 1 << 30;
    if (!shape->rows || !shape->columns || shape->rows > most || shape->columns > most) return 0;
    if (shape->rows * shape->columns > most) return 0;
    const uint32_t columns = (uint32_t)shape->columns;
    if (!shape->plane_height || !shape->plane_width) return 0;
    if (shape->plane_height > columns || shape->plane_width > columns) return 0;
    const uint32_t high = (uint32_t)shape->plane_height, wide = (uint32_t)shape->plane_width;
    if (columns % high || columns / high % wide) return 0;
    if (!shape->positive && !shape->negative) return 0;
    if (shape->positive > 65536 || shape->negative > 65536) return 0;
    if (!workspace || (uintptr_t)workspace % 8) return 0;
    return shape->rate >= 1 && shape->rate <= 64 && workspace_size >= dcz_context_workspace(shape);
}

size_t dcz_context_workspace(const dcz_context_shape *shape) { return lay_out(0, shape).end; }

int dcz_context_encode(const dcz_context_shape *shape, const int32_t *levels, uint8_t *out,
                       size_t capacity, size_t *written, void *workspace, size_t workspace_size) {
    job j = {shape, (int32_t *)(uintptr_t)levels, workspace, {0, UINT32_MAX, 0, 0, out, capacity, 0, 0, 0}};
    if (!usable(shape, workspace, workspace_size)) return DCZ_MISUSE;
    for (uint64_t i = 0; i < shape->rows * shape->columns; i++)
        if (levels[i] > (int64_t)shape->positive || levels[i] < -(int64_t)shape->negative)
            return DCZ_MISUSE;
    int status = code_all(&j);
    if (status) return status;
    if (j.c.low) {
        if (j.c.position >= capacity) return DCZ_NO_ROOM;
        out[j.c.position++] = (uint8_t)((j.c.low >> 24) + 1);
    }
    *written = j.c.position;
    return DCZ_OK;
}

int dcz_context_decode(const dcz_context_shape *shape, const uint8_t *stream, size_t length,
                       int32_t *levels, void *workspace, size_t workspace_size) {
    job j = {shape, levels, workspace, {0, UINT32_MAX, 0, stream, 0, length, 0, 1, 0}};
    if (!usable(shape, workspace, workspace_size)) return DCZ_MISUSE;
    for (uint32_t i = 0; i < 4; i++) j.c.code = j.c.code << 8 | (i < length ? stream[i] : 0u);
    int status = code_all(&j);
    if (status) return status;
    if (j.c.low ? length != j.c.position + 1 || stream[length - 1] != (j.c.low >> 24) + 1
                : length != j.c.position)
        return DCZ_END;
    return DCZ_OK;
}
