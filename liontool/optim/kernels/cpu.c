/* One step of Lion or LionSF on many tensors; the same bits as reference.py in float32.
 *
 * Knows neither torch nor Python nor OpenMP: cpu.py passes addresses. Everything that a step does is
 * in `step_pair`; below it stand loads and stores, above it nothing. This file includes itself once
 * for each instruction set. It is built with -ffp-contract=off, since a fused multiply-add rounds
 * once where the reference rounds twice.
 *
 * Sums of counts are integers and every element is computed by itself, so the number of threads
 * changes no bit.
 */
#ifndef LANES

#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

/* The newer version of pow, which sets no errno, would ask for glibc 2.29. */
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver pow, pow@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver pow, pow@GLIBC_2.17");
#endif

/* What a sweep does with a stretch of a tensor. */
enum { UPDATE, UPDATE_CAUTIOUS, COUNT, ENCODE, APPLY };

/* Bits of the kind of a tensor; what is not bfloat16 is float32. */
enum { WEIGHT_BF16 = 1, GRAD_BF16 = 2, MOMENTUM_BF16 = 4, SPLIT = 8 };

/* How a tensor comes by the size of its step; the same numbers stand in cpu.py. */
enum {
    GIVEN, /* it is known before */
    WHOLE, /* one thread counts all of it, then updates it from its cache */
    CODED, /* count and store the signs of the update in two bits each; apply them in phase 2 */
    AGAIN, /* count; compute the update once more in phase 2 */
};

enum { NO_AGREEMENT, UNSIGNED, SIGNED };

typedef struct {
    char *weight, *momentum, *residual;
    int64_t numel, kind, group, way;
    int64_t codes; /* where its codes begin, in words */
} Tensor;

typedef struct {
    int64_t first, last; /* tensors */
    int64_t start, end;  /* elements, if it is one tensor */
    int64_t phase;
} Item;

/* Counts of a tensor or of a group; those of the groups stand behind those of the tensors. */
typedef struct {
    int64_t numel;
    int64_t parts;   /* in which it is counted */
    int64_t pending; /* parts that are not yet counted */
    int64_t agreeing, given;
} Cell;

typedef struct {
    double decay, beta1, gradient1, beta2, gradient2, lr, pow, cautious_factor;
    int64_t maximize, agreement, together, cautious, cautious_decay;
} Group;

typedef struct {
    float decay, beta1, gradient1, beta2, gradient2, agree, differ;
    uint32_t flip; /* the bit that makes of the gradient the direction; the factors have it */
    int is_signed;      /* gradients that are not 0 are counted */
    int cautious_decay; /* only of weights that the step makes smaller */
} Factors;

typedef struct {
    char *weight, *momentum, *residual;
    const char *grad;
    uint32_t *codes;
    int64_t numel;
} Stretch;

typedef struct {
    int64_t agreeing, given;
} Counts;

typedef Counts Sweep(int what, int64_t kind, Stretch stretch, const Factors *f);

#define JOIN_(name, set) name##_##set
#define JOIN(name, set) JOIN_(name, set)
#define INLINE static inline __attribute__((always_inline))
#define WIDTH (2 * LANES) /* elements that are computed side by side */
#define AHEAD 2048        /* bytes that are asked for before they are needed */
#define SIGNS ((int)0xa933a833) /* AVX-512's: of above 0, below 0, infinities, 1, 0, NaN twice */
#define START 512         /* bytes of a tensor that are asked for during the one before */

INLINE int writes_weight(int what) {
    return what == UPDATE || what == UPDATE_CAUTIOUS || what == APPLY;
}

INLINE int writes_momentum(int what) {
    return what == UPDATE || what == UPDATE_CAUTIOUS || what == ENCODE;
}

#define LANES 4
#define SET plain
#define TARGET
#include "cpu.c"
#undef LANES
#undef SET
#undef TARGET

#if defined(__x86_64__) && defined(__GNUC__)
#define LANES 8
#define SET avx2
#define TARGET __attribute__((target("avx2")))
#include "cpu.c"
#undef LANES
#undef SET
#undef TARGET

#define LANES 16
#define SET avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "cpu.c"
#undef LANES
#undef SET
#undef TARGET
#endif

/* ---- the instruction sets of this machine */

/* The sweep of an instruction set, from 0, the plainest; NULL if this machine does not have it. */
static Sweep *sweep_of(int set) {
    if (set == 0) return sweep_plain;
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (set == 1 && __builtin_cpu_supports("avx2")) return sweep_avx2;
    if (set == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return sweep_avx512;
#endif
    return 0;
}

int liontool_has_set(int set) { return sweep_of(set) != 0; }

/* ---- step sizes, in float64 as in reference.py */

static double share(int64_t part, int64_t whole) {
    return whole ? (double)part / (double)whole : 1.0;
}

static double power(double base, double exponent) { /* as torch does it */
    if (exponent == 0.0) return 1.0;
    if (exponent == 1.0) return base;
    if (exponent == 2.0) return base * base;
    if (exponent == 3.0) return base * base * base;
    if (exponent == 0.5) return sqrt(base);
    return pow(base, exponent);
}

static double agreement_scale(const Group *group, const Cell *cell) {
    int64_t counted = group->agreement == SIGNED ? cell->given : cell->numel;
    double surplus = 2 * share(cell->agreeing, counted) - 1;
    if (group->agreement == NO_AGREEMENT || counted == 0) return 1.0;
    if (group->agreement == SIGNED) return power(surplus < 0 ? 0.0 : surplus, group->pow);
    return power(fabs(surplus), group->pow);
}

static Factors factors_of(const Group *group) {
    double sign = group->maximize ? -1.0 : 1.0;
    Factors f = {
        .decay = (float)group->decay,
        .beta1 = (float)group->beta1,
        .gradient1 = (float)(sign * group->gradient1),
        .beta2 = (float)group->beta2,
        .gradient2 = (float)(sign * group->gradient2),
        .agree = (float)group->lr,
        .differ = (float)group->lr,
        .flip = group->maximize ? 0x80000000u : 0,
        .is_signed = group->agreement == SIGNED,
        .cautious_decay = group->cautious_decay != 0,
    };
    return f;
}

static void set_sizes(Factors *f, const Group *group, const Cell *scope, const Cell *own) {
    double size = group->lr * agreement_scale(group, scope);
    f->agree = f->differ = (float)size;
    if (group->cautious) {
        double agreed = share(own->agreeing, own->numel), factor = group->cautious_factor;
        double mean = agreed + factor * (1 - agreed);
        mean = mean < 1e-5 ? 1e-5 : mean;
        f->agree = (float)(size * (1 / mean));
        f->differ = (float)(size * (factor / mean));
    }
}

/* ---- items of work, claimed one by one */

typedef struct {
    const Tensor *tensors;
    const Item *items;
    const char *const *grads;
    const Group *groups;
    Cell *cells, *group_cells;
    uint32_t *codes;
    Sweep *sweep;
    int64_t item_count, next;
} Step;

static Stretch stretch_of(const Step *step, int64_t t, int64_t start, int64_t end) {
    const Tensor *tensor = &step->tensors[t];
    int64_t weight_size = tensor->kind & WEIGHT_BF16 ? 2 : 4;
    int64_t grad_size = tensor->kind & GRAD_BF16 ? 2 : 4;
    int64_t momentum_size = tensor->kind & MOMENTUM_BF16 ? 2 : 4;
    Stretch stretch = {
        .weight = tensor->weight + start * weight_size,
        .momentum = tensor->momentum + start * momentum_size,
        .residual = tensor->kind & SPLIT ? tensor->residual + start * 2 : 0,
        .grad = step->grads[t] + start * grad_size,
        .codes = tensor->way == CODED ? step->codes + tensor->codes + start / 16 : 0,
        .numel = end - start,
    };
    return stretch;
}

static void add(Cell *cell, Counts counts) {
    __atomic_fetch_add(&cell->agreeing, counts.agreeing, __ATOMIC_RELAXED);
    __atomic_fetch_add(&cell->given, counts.given, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&cell->pending, 1, __ATOMIC_RELEASE);
}

/* Other threads have claimed all that is not yet counted, so the wait ends. */
static void wait_for(const Cell *cell) {
    for (int tries = 0; __atomic_load_n(&cell->pending, __ATOMIC_ACQUIRE) > 0; tries++)
        if (tries > 1000) sched_yield();
}

static void do_stretch(const Step *step, int64_t t, int64_t start, int64_t end, int64_t phase) {
    const Tensor *tensor = &step->tensors[t];
    const Group *group = &step->groups[tensor->group];
    Cell *own = &step->cells[t], *together = &step->group_cells[tensor->group];
    Cell *scope = group->together ? together : own;
    Stretch stretch = stretch_of(step, t, start, end);
    Factors f = factors_of(group);
    if (phase == 1 && tensor->way != GIVEN) {
        int what = tensor->way == CODED ? ENCODE : COUNT;
        Counts counts = step->sweep(what, tensor->kind, stretch, &f);
        add(own, counts);
        if (group->together) add(together, counts);
        if (tensor->way != WHOLE) return;
    }
    if (tensor->way != GIVEN) {
        wait_for(scope);
        set_sizes(&f, group, scope, own);
    }
    int update = group->cautious ? UPDATE_CAUTIOUS : UPDATE;
    step->sweep(tensor->way == CODED ? APPLY : update, tensor->kind, stretch, &f);
}

/* The beginning of a tensor, which follows no stream that the processor could look ahead in. */
static void fetch_start(const Step *step, int64_t t) {
    Stretch stretch = stretch_of(step, t, 0, step->tensors[t].numel);
    const char *streams[] = {stretch.weight, stretch.grad, stretch.momentum};
    for (int stream = 0; stream < 3; stream++)
        for (int64_t line = 0; line < START; line += 64)
            __builtin_prefetch(streams[stream] + line);
}

static void work(void *argument) {
    Step *step = argument;
    for (;;) {
        int64_t claimed = __atomic_fetch_add(&step->next, 1, __ATOMIC_RELAXED);
        if (claimed >= step->item_count) return;
        const Item *item = &step->items[claimed];
        if (item->first == item->last)
            do_stretch(step, item->first, item->start, item->end, item->phase);
        else
            for (int64_t t = item->first; t <= item->last; t++) {
                if (t < item->last) fetch_start(step, t + 1);
                do_stretch(step, t, 0, step->tensors[t].numel, item->phase);
            }
    }
}

/* GOMP_parallel of the OpenMP library that torch has loaded: its threads are already running. */
typedef void Parallel(void (*)(void *), void *, unsigned threads, unsigned flags);

void liontool_step(const Tensor *tensors, int64_t tensor_count, const char *const *grads,
                   const Item *items, int64_t item_count, const Group *groups,
                   int64_t group_count, Cell *cells, uint32_t *codes, int set, unsigned threads,
                   Parallel *parallel) {
    Step step = {tensors, items, grads, groups, cells, cells + tensor_count, codes,
                 sweep_of(set), item_count, 0};
    for (int64_t i = 0; i < tensor_count + group_count; i++) {
        cells[i].pending = cells[i].parts;
        cells[i].agreeing = cells[i].given = 0;
    }
    if (parallel && threads > 1 && item_count > 1)
        parallel(work, &step, item_count < threads ? (unsigned)item_count : threads, 0);
    else
        work(&step);
}

/* Asks for lines of memory that Python is about to read; nothing happens where there is none. */
void liontool_fetch(const char *const *lines, int64_t count) {
    for (int64_t i = 0; i < count; i++) __builtin_prefetch(lines[i]);
}

#else /* ---- for each instruction set, with vectors of LANES floats */

#define OF_SET(name) JOIN(name, SET)
#define floats OF_SET(floats)
#define uints OF_SET(uints)
#define ints OF_SET(ints)
#define halves OF_SET(halves)
#define short_ints OF_SET(short_ints)
#define Pair OF_SET(Pair)
#define UintPair OF_SET(UintPair)
#define Sums OF_SET(Sums)
#define load OF_SET(load)
#define load_lacking OF_SET(load_lacking)
#define nearest OF_SET(nearest)
#define store OF_SET(store)
#define store_upper OF_SET(store_upper)
#define store_split OF_SET(store_split)
#define with_lacking OF_SET(with_lacking)
#define sign_of OF_SET(sign_of)
#define agrees OF_SET(agrees)
#define chosen OF_SET(chosen)
#define moved OF_SET(moved)
#define updated OF_SET(updated)
#define with_codes OF_SET(with_codes)
#define step_of OF_SET(step_of)
#define steps_of OF_SET(steps_of)
#define step_pair OF_SET(step_pair)
#define step_rest OF_SET(step_rest)
#define look_ahead OF_SET(look_ahead)
#define swept OF_SET(swept)

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t uints __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef int16_t short_ints __attribute__((vector_size(2 * LANES)));

/* Two vectors. If weights and momentum have 16 bits, `a` has the even elements and `b` the odd ones:
 * the halves of 32-bit words. Else `a` comes before `b`. */
typedef struct {
    floats a, b;
} Pair;

typedef struct {
    ints agreeing, given; /* negative */
    uints codes;
    floats steps; /* of the codes */
} Sums;

/* ---- loads and stores */

INLINE TARGET Pair load(const char *from, int64_t i, int bf16, int words) {
    Pair x;
    if (!bf16) {
        memcpy(&x.a, from + 4 * i, sizeof x.a);
        memcpy(&x.b, from + 4 * (i + LANES), sizeof x.b);
    } else if (words) {
        uints both;
        memcpy(&both, from + 2 * i, sizeof both);
        x.a = (floats)(both << 16);
        x.b = (floats)(both & 0xffff0000u);
    } else {
        halves a, b;
        memcpy(&a, from + 2 * i, sizeof a);
        memcpy(&b, from + 2 * (i + LANES), sizeof b);
        x.a = (floats)(__builtin_convertvector(a, uints) << 16);
        x.b = (floats)(__builtin_convertvector(b, uints) << 16);
    }
    return x;
}

/* 32-bit patterns whose upper halves are kept. */
INLINE TARGET void store_upper(char *to, int64_t i, uints a, uints b, int words) {
    if (words) {
        uints both = (a >> 16) | (b & 0xffff0000u);
        memcpy(to + 2 * i, &both, sizeof both);
    } else {
        halves first = __builtin_convertvector(a >> 16, halves);
        halves second = __builtin_convertvector(b >> 16, halves);
        memcpy(to + 2 * i, &first, sizeof first);
        memcpy(to + 2 * (i + LANES), &second, sizeof second);
    }
}

/* The pattern whose upper half is the nearest bfloat16, of halfway cases the even one. The carry
 * could make another thing of a NaN, but not of one whose lower half is 0: so are those that
 * arithmetic makes, and those that it passes on from bfloat16. */
INLINE TARGET uints nearest(floats x, int from_bf16) {
    uints bits = (uints)x, even = bits + 0x7fffu;
#if LANES == 16
    __mmask16 is_odd = _mm512_test_epi32_mask((__m512i)bits, _mm512_set1_epi32(0x10000));
    even = (uints)_mm512_mask_add_epi32((__m512i)even, is_odd, (__m512i)even, _mm512_set1_epi32(1));
#else
    even += (bits >> 16) & 1u;
#endif
    if (from_bf16) return even;
    uints is_nan = (uints)(x != x);
    return (even & ~is_nan) | ((bits | 0x400000u) & is_nan);
}

INLINE TARGET void store(char *to, int64_t i, Pair x, int bf16, int words) {
    if (bf16) {
        store_upper(to, i, nearest(x.a, words), nearest(x.b, words), words);
    } else {
        memcpy(to + 4 * i, &x.a, sizeof x.a);
        memcpy(to + 4 * (i + LANES), &x.b, sizeof x.b);
    }
}

/* ---- float32 as bfloat16 and the 16 bits that it lacks; see rounding.py */

INLINE TARGET floats with_lacking(floats upper, ints lacking) {
    uints bits = (uints)upper, magnitude = bits & 0x7fff0000u;
    lacking &= ~((ints)(magnitude == 0) & (ints)(lacking < 0));
    lacking &= ~((ints)(magnitude >= 0x7f800000u) & (ints)(lacking > 0));
    return (floats)(bits + (uints)lacking);
}

INLINE TARGET Pair load_lacking(Pair upper, const char *from, int64_t i, int words) {
    Pair x;
    if (words) {
        uints both;
        memcpy(&both, from + 2 * i, sizeof both);
        x.a = with_lacking(upper.a, (ints)(both << 16) >> 16);
        x.b = with_lacking(upper.b, (ints)both >> 16);
    } else {
        short_ints a, b;
        memcpy(&a, from + 2 * i, sizeof a);
        memcpy(&b, from + 2 * (i + LANES), sizeof b);
        x.a = with_lacking(upper.a, __builtin_convertvector(a, ints));
        x.b = with_lacking(upper.b, __builtin_convertvector(b, ints));
    }
    return x;
}

INLINE TARGET void store_split(char *to, char *lacking, int64_t i, Pair x, int words) {
    uints nan_a = (uints)(x.a != x.a), nan_b = (uints)(x.b != x.b);
    uints a = ((uints)x.a & ~(nan_a & 0xffffu)) | (nan_a & 0x400000u);
    uints b = ((uints)x.b & ~(nan_b & 0xffffu)) | (nan_b & 0x400000u);
    uints upper_a = (a + 0x8000u) & 0xffff0000u, upper_b = (b + 0x8000u) & 0xffff0000u;
    store_upper(to, i, upper_a, upper_b, words);
    store_upper(lacking, i, (a - upper_a) << 16, (b - upper_b) << 16, words);
}

/* ---- the step */

/* Sign of the mix, NaN where that is not finite. */
INLINE TARGET floats sign_of(floats g, floats m, const Factors *f) {
    floats mix = f->beta1 * m + f->gradient1 * g;
#if LANES == 16
    return (floats)_mm512_fixupimm_ps((__m512)mix, (__m512)mix, _mm512_set1_epi32(SIGNS), 0);
#else
    uints sign = ((uints)mix & 0x80000000u) | 0x3f800000u;
    return (floats)(sign & (uints)(mix != 0.0f)) + 0.0f * mix;
#endif
}

/* Where the update points along the direction. */
INLINE TARGET uints agrees(floats u, floats g, const Factors *f) {
    return (uints)(u * (floats)((uints)g ^ f->flip) > 0.0f);
}

INLINE TARGET floats chosen(uints where, floats a, floats b) {
    return (floats)(((uints)a & where) | ((uints)b & ~where));
}

INLINE TARGET floats moved(floats p, floats step, const Factors *f) {
    floats decayed = p * f->decay;
    if (f->cautious_decay) decayed = chosen((uints)(step * p > 0.0f), decayed, p);
    return decayed - step;
}

INLINE TARGET floats updated(floats p, floats g, floats u, const Factors *f, int cautious) {
    if (!cautious) return moved(p, f->agree * u, f);
    floats agree = (floats){0} + f->agree, differ = (floats){0} + f->differ;
    return moved(p, chosen(agrees(u, g, f), agree, differ) * u, f);
}

/* Two bits for each update: 0 for -1, 1 for 0, 2 for 1, 3 for NaN. They are the lowest bit of the
 * exponent and the highest of the mantissa of 2, 3, 4 and NaN. Eight pairs share a vector, the last
 * one in the highest bits. */
INLINE TARGET uints with_codes(uints codes, Pair u) {
    uints a = (uints)(u.a + 3.0f) << 6, b = (uints)(u.b + 3.0f) << 8;
    return (codes >> 4) | (a & 0x30000000u) | (b & 0xc0000000u);
}

/* What to subtract from the weight for the code in the lowest bits; `steps` are that of all codes. */
INLINE TARGET floats step_of(uints codes, floats steps) {
#if LANES > 4 && !defined(__clang__)
    return __builtin_shuffle(steps, (ints)codes); /* an index is taken modulo LANES */
#else
    uints code = codes & 3u;
    floats u = (floats)((code << 22) | 0x40000000u) - 3.0f;
    return steps[2] * (floats)((uints)u | ((uints)(code == 3u) & 0x7fc00000u));
#endif
}

/* The four steps, as often as they go into a vector. */
INLINE TARGET floats steps_of(float size) {
    const float updates[4] = {-1.0f, 0.0f, 1.0f, NAN};
    floats steps;
    for (int lane = 0; lane < LANES; lane++) steps[lane] = size * updates[lane % 4];
    return steps;
}

/* What `what` does with the elements i to i + WIDTH, which lie at `at`. All flags are constants. */
INLINE TARGET void step_pair(int what, Stretch s, const Factors *f, Sums *sums, int64_t i,
                             int64_t at, const int kind) {
    const int weight_bf16 = kind & WEIGHT_BF16, grad_bf16 = kind & GRAD_BF16;
    const int momentum_bf16 = kind & MOMENTUM_BF16, split = kind & SPLIT;
    const int words = weight_bf16 && grad_bf16 && momentum_bf16;
    const int place = (int)((uint64_t)i / WIDTH % 8); /* among the pairs that share codes */
    Pair g, m, u, p;
    if (what != APPLY) {
        g = load(s.grad, at, grad_bf16, words);
        m = load(s.momentum, at, momentum_bf16, words);
        u.a = sign_of(g.a, m.a, f);
        u.b = sign_of(g.b, m.b, f);
    }
    if (what == COUNT || what == ENCODE) {
        sums->agreeing += (ints)agrees(u.a, g.a, f) + (ints)agrees(u.b, g.b, f);
        if (f->is_signed) sums->given += (ints)(g.a != 0.0f) + (ints)(g.b != 0.0f);
    }
    if (what == ENCODE) {
        sums->codes = with_codes(sums->codes, u);
        if (place == 7 || i + WIDTH >= s.numel) {
            uints codes = sums->codes >> (28 - 4 * place);
            memcpy(s.codes + (i / WIDTH - place) * WIDTH / 16, &codes, sizeof codes);
        }
    }
    if (writes_weight(what)) {
        p = load(s.weight, at, weight_bf16, words);
        if (split) p = load_lacking(p, s.residual, at, words);
        if (what == APPLY) {
            if (place == 0) memcpy(&sums->codes, s.codes + i / 16, sizeof sums->codes);
            p.a = moved(p.a, step_of(sums->codes, sums->steps), f);
            p.b = moved(p.b, step_of(sums->codes >> 2, sums->steps), f);
            sums->codes >>= 4;
        } else {
            p.a = updated(p.a, g.a, u.a, f, what == UPDATE_CAUTIOUS);
            p.b = updated(p.b, g.b, u.b, f, what == UPDATE_CAUTIOUS);
        }
        if (split)
            store_split(s.weight, s.residual, at, p, words);
        else
            store(s.weight, at, p, weight_bf16, words);
    }
    if (writes_momentum(what)) {
        m.a = f->beta2 * m.a + f->gradient2 * g.a;
        m.b = f->beta2 * m.b + f->gradient2 * g.b;
        store(s.momentum, at, m, momentum_bf16, words);
    }
}

/* The last elements, fewer than WIDTH, among zeros: those agree with nothing. */
INLINE TARGET void step_rest(int what, Stretch s, const Factors *f, Sums *sums, int64_t i,
                             const int kind) {
    char weight[4 * WIDTH] = {0}, momentum[4 * WIDTH] = {0}, residual[2 * WIDTH] = {0},
         grad[4 * WIDTH] = {0};
    const int64_t weight_size = kind & WEIGHT_BF16 ? 2 : 4, grad_size = kind & GRAD_BF16 ? 2 : 4;
    const int64_t momentum_size = kind & MOMENTUM_BF16 ? 2 : 4, rest = s.numel - i;
    Stretch padded = {weight, momentum, residual, grad, s.codes, s.numel};
    if (writes_weight(what)) memcpy(weight, s.weight + i * weight_size, rest * weight_size);
    if (what != APPLY) {
        memcpy(momentum, s.momentum + i * momentum_size, rest * momentum_size);
        memcpy(grad, s.grad + i * grad_size, rest * grad_size);
    }
    if (kind & SPLIT) memcpy(residual, s.residual + i * 2, rest * 2);
    step_pair(what, padded, f, sums, i, 0, kind);
    if (writes_weight(what)) memcpy(s.weight + i * weight_size, weight, rest * weight_size);
    if (writes_momentum(what))
        memcpy(s.momentum + i * momentum_size, momentum, rest * momentum_size);
    if (kind & SPLIT) memcpy(s.residual + i * 2, residual, rest * 2);
}

/* Asks for what comes after a page's end, where the processor itself does not look ahead. */
INLINE TARGET void look_ahead(const char *from, int64_t size) {
    for (int64_t line = 0; line < size; line += 64) __builtin_prefetch(from + AHEAD + line);
}

INLINE TARGET Counts swept(int what, Stretch s, const Factors *shared, const int kind) {
    const Factors own = *shared, *f = &own; /* no store can change a copy: it stays in registers */
    const int64_t weight_size = kind & WEIGHT_BF16 ? 2 : 4, grad_size = kind & GRAD_BF16 ? 2 : 4;
    const int64_t momentum_size = kind & MOMENTUM_BF16 ? 2 : 4;
    Sums sums = {{0}, {0}, {0}, steps_of(f->agree)};
    Counts counts = {0, 0};
    int64_t i = 0;
    for (; i + WIDTH <= s.numel; i += WIDTH) {
        if (writes_weight(what)) look_ahead(s.weight + i * weight_size, WIDTH * weight_size);
        if (what != APPLY) {
            look_ahead(s.grad + i * grad_size, WIDTH * grad_size);
            look_ahead(s.momentum + i * momentum_size, WIDTH * momentum_size);
        }
        step_pair(what, s, f, &sums, i, i, kind);
    }
    if (i < s.numel) step_rest(what, s, f, &sums, i, kind);
    if (what == COUNT || what == ENCODE) {
        int32_t agreeing[LANES], given[LANES];
        memcpy(agreeing, &sums.agreeing, sizeof agreeing);
        memcpy(given, &sums.given, sizeof given);
        for (int lane = 0; lane < LANES; lane++) {
            counts.agreeing -= agreeing[lane];
            counts.given -= given[lane];
        }
    }
    return counts;
}

#define KIND(what, constant) \
    case constant: return swept(what, s, f, constant);
#define WHOLE_KINDS(what)                       \
    KIND(what, 0)                               \
    KIND(what, MOMENTUM_BF16)                   \
    KIND(what, WEIGHT_BF16)                     \
    KIND(what, WEIGHT_BF16 | MOMENTUM_BF16)     \
    KIND(what, WEIGHT_BF16 | GRAD_BF16)         \
    KIND(what, WEIGHT_BF16 | GRAD_BF16 | MOMENTUM_BF16)
#define SPLIT_KINDS(what)                       \
    KIND(what, SPLIT | WEIGHT_BF16)             \
    KIND(what, SPLIT | WEIGHT_BF16 | MOMENTUM_BF16) \
    KIND(what, SPLIT | WEIGHT_BF16 | GRAD_BF16) \
    KIND(what, SPLIT | WEIGHT_BF16 | GRAD_BF16 | MOMENTUM_BF16)

TARGET static Counts OF_SET(sweep)(int what, int64_t kind, Stretch s, const Factors *f) {
    const Counts nothing = {0, 0};
    switch (what) {
        case UPDATE:
            switch (kind) { WHOLE_KINDS(UPDATE) SPLIT_KINDS(UPDATE) }
            break;
        case UPDATE_CAUTIOUS:
            switch (kind) { WHOLE_KINDS(UPDATE_CAUTIOUS) SPLIT_KINDS(UPDATE_CAUTIOUS) }
            break;
        case COUNT:
            switch (kind & ~SPLIT) { WHOLE_KINDS(COUNT) }
            break;
        case ENCODE:
            switch (kind & ~SPLIT) { WHOLE_KINDS(ENCODE) }
            break;
        case APPLY:
            switch (kind) { WHOLE_KINDS(APPLY) SPLIT_KINDS(APPLY) }
            break;
    }
    return nothing;
}

#endif
