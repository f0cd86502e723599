/*
 * The candidate list: gathering, partial ordering, truncation, drawing. The semantics of every
 * truncation are those people know from other engines; each is tested against a brute-force form.
 */
#include "sampling/candidates.h"

#include <float.h>
#include <math.h>

static void swap(candidate *a, candidate *b)
{
    candidate t = *a;
    *a = *b;
    *b = t;
}

/* Heap with the *last* of the order at its root, so that popping fills the array from its end. */
static void sift_down(candidate *v, int32_t n, int32_t i)
{
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= n)
            return;
        if (child + 1 < n && candidate_before(&v[child], &v[child + 1]))
            child++;
        if (!candidate_before(&v[i], &v[child]))
            return;
        swap(&v[i], &v[child]);
        i = child;
    }
}

static void heap_sort(candidate *v, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift_down(v, n, i);
    for (int32_t i = n - 1; i > 0; i--) {
        swap(&v[0], &v[i]);
        sift_down(v, i, 0);
    }
}

static void insertion_sort(candidate *v, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        candidate x = v[i];
        int32_t j = i;
        for (; j > 0 && candidate_before(&x, &v[j - 1]); j--)
            v[j] = v[j - 1];
        v[j] = x;
    }
}

/*
 * Hoare's partition around the median of three; 2 <= n. Returns m with v[0..m) all before v[m..n),
 * 0 < m < n.
 */
static int32_t partition(candidate *v, int32_t n)
{
    candidate *a = &v[0], *b = &v[n / 2], *c = &v[n - 1];
    if (candidate_before(b, a))
        swap(a, b);
    if (candidate_before(c, b)) {
        swap(b, c);
        if (candidate_before(b, a))
            swap(a, b);
    }
    candidate pivot = *b;
    int32_t i = -1, j = n;
    for (;;) {
        do
            i++;
        while (candidate_before(&v[i], &pivot));
        do
            j--;
        while (candidate_before(&pivot, &v[j]));
        if (i >= j)
            return i > 0 ? i : 1;
        swap(&v[i], &v[j]);
    }
}

/* How many unlucky partitions are allowed before heap sort takes over: about 2 log2 n. */
static int depth_limit(int32_t n)
{
    int depth = 8;
    for (; n > 0; n >>= 1)
        depth += 2;
    return depth;
}

void candidates_select(candidate *v, int32_t n, int32_t k)
{
    int depth = depth_limit(n);
    while (k > 0 && k < n) {
        if (n <= 16) {
            insertion_sort(v, n);
            return;
        }
        if (depth-- == 0) {
            heap_sort(v, n);
            return;
        }
        int32_t m = partition(v, n);
        if (k < m) {
            n = m;
        } else {
            v += m;
            n -= m;
            k -= m;
        }
    }
}

static void sort_to(candidate *v, int32_t n, int depth)
{
    while (n > 16) {
        if (depth-- == 0) {
            heap_sort(v, n);
            return;
        }
        int32_t m = partition(v, n);
        if (m < n - m) { /* recurse into the smaller half: depth O(log n) */
            sort_to(v, m, depth);
            v += m;
            n -= m;
        } else {
            sort_to(v + m, n - m, depth);
            n = m;
        }
    }
    insertion_sort(v, n);
}

void candidates_sort(candidate *v, int32_t n) { sort_to(v, n, depth_limit(n)); }

/*
 * -inf and NaN are out (the comparison is false for both). Adding 0 makes -0 and +0 equal bit for
 * bit.
 */
static void append(candidates *c, float logit, int32_t id)
{
    if (!(logit > -INFINITY))
        return;
    if (logit > FLT_MAX)
        logit = FLT_MAX;
    logit += 0.0f;
    c->v[c->n++] = (candidate){logit, logit, 0.0f, id};
}

void candidates_gather(candidates *c, const float *logits, int32_t n)
{
    c->n = 0;
    c->sorted = false;
    for (int32_t i = 0; i < n; i++)
        append(c, logits[i], i);
}

/*
 * Whether any of count logits is above limit; written without a branch so that it becomes a few
 * vector compares.
 */
static bool any_above(const float *x, int32_t count, float limit)
{
    int any = 0;
    for (int32_t j = 0; j < count; j++)
        any |= x[j] > limit;
    return any != 0;
}

/*
 * One pass with a rising threshold: once k candidates are known, a logit must exceed the k-th best
 * of them to matter (an equal one has a higher id and loses). The list collects up to 2k before the
 * best k are selected again, so the selections cost O(1) per collected candidate. Blocks below the
 * threshold are skipped by one vector compare.
 */
void candidates_gather_top_k(candidates *c, const float *logits, int32_t n, int32_t k)
{
    enum { BLOCK = 64 };
    int32_t room = n;
    if (k < n / 2)
        room = 2 * k < 256 ? 256 : 2 * k;
    if (room > n)
        room = n;
    float limit = -INFINITY;
    c->n = 0;
    for (int32_t i = 0; i < n; i += BLOCK) {
        int32_t end = i + BLOCK < n ? i + BLOCK : n;
        if (!any_above(logits + i, end - i, limit))
            continue;
        for (int32_t j = i; j < end; j++) {
            if (!(logits[j] > limit))
                continue;
            append(c, logits[j], j);
            if (c->n == room && c->n > k) {
                candidates_select(c->v, c->n, k);
                c->n = k;
                for (int32_t t = 0; t < k; t++)
                    limit = t == 0 || c->v[t].logit < limit ? c->v[t].logit : limit;
            }
        }
    }
    if (c->n > k) {
        candidates_select(c->v, c->n, k);
        c->n = k;
    }
    candidates_sort(c->v, c->n);
    c->sorted = true;
}

static float largest_logit(const candidates *c)
{
    float best = c->v[0].logit;
    for (int32_t i = 1; i < c->n && !c->sorted; i++)
        best = c->v[i].logit > best ? c->v[i].logit : best;
    return best;
}

/*
 * exp((l - max) / t): the largest term is 1, so neither overflow nor a sum of 0 is possible,
 * however small t is.
 */
double candidates_softmax(candidates *c, float temperature)
{
    float top = largest_logit(c);
    double sum = 0.0;
    for (int32_t i = 0; i < c->n; i++) {
        float d = c->v[i].logit - top;
        c->v[i].p = d == 0.0f ? 1.0f : expf(d / temperature);
        sum += (double)c->v[i].p;
    }
    return sum;
}

/*
 * How the running sum ends a list: top-p takes the token that reaches p, typical the one that
 * exceeds it.
 */
typedef enum reach { REACH_AT_LEAST, REACH_ABOVE } reach;

static bool reached(double running, double limit, reach how) { return how == REACH_ABOVE ? running > limit : running >= limit; }

/*
 * Keeps the shortest prefix of the ordered list whose probability reaches limit, without ordering
 * it: partition, and go on in the part that holds the border, as selection does, but by mass
 * instead of count. O(n); only the last few candidates around the border are sorted. An unsorted
 * list stays unsorted.
 */
static void keep_prefix(candidates *c, double limit, reach how)
{
    int32_t low = 0, high = c->n;
    double before = 0.0; /* mass of v[0..low) */
    int depth = depth_limit(c->n);
    while (!c->sorted && high - low > 64 && depth-- > 0) {
        int32_t middle = low + partition(c->v + low, high - low);
        double mass = 0.0;
        for (int32_t i = low; i < middle; i++)
            mass += (double)c->v[i].p;
        if (reached(before + mass, limit, how)) {
            high = middle;
        } else {
            before += mass;
            low = middle;
        }
    }
    if (!c->sorted)
        candidates_sort(c->v + low, high - low);
    for (int32_t i = low; i < high; i++) {
        before += (double)c->v[i].p;
        if (reached(before, limit, how)) {
            c->n = i + 1;
            return;
        }
    }
    c->n = high; /* rounding: the part before the border reached it by another order of summing */
}

void candidates_top_p(candidates *c, float p)
{
    double sum = candidates_softmax(c, 1.0f);
    keep_prefix(c, (double)p * sum, REACH_AT_LEAST);
}

/*
 * Locally typical sampling (Meister et al. 2022): keep the tokens whose surprise -log p is nearest
 * to the entropy H, nearest first, until their probability exceeds p.
 */
void candidates_typical(candidates *c, float p)
{
    double sum = candidates_softmax(c, 1.0f), log_sum = log(sum), entropy = 0.0;
    float top = largest_logit(c);
    for (int32_t i = 0; i < c->n; i++) {
        if (c->v[i].p > 0.0f) {
            double surprise = log_sum - (double)(c->v[i].logit - top);
            entropy += (double)c->v[i].p / sum * surprise;
        }
    }
    for (int32_t i = 0; i < c->n; i++) {
        double surprise = log_sum - (double)(c->v[i].logit - top);
        c->v[i].key = (float)-fabs(surprise - entropy);
    }
    c->sorted = false;
    keep_prefix(c, (double)p * sum, REACH_ABOVE);
    for (int32_t i = 0; i < c->n; i++)
        c->v[i].key = c->v[i].logit;
}

/* p_i >= p * p_max, said in logits. The largest itself always stays. */
void candidates_min_p(candidates *c, float p)
{
    float top = largest_logit(c), limit = top + logf(p);
    int32_t kept = 0;
    for (int32_t i = 0; i < c->n; i++) {
        if (c->v[i].logit >= limit || c->v[i].logit == top)
            c->v[kept++] = c->v[i];
    }
    c->n = kept;
}

void candidates_xtc(candidates *c, float threshold)
{
    if (c->n < 2)
        return;
    double limit = (double)threshold * candidates_softmax(c, 1.0f);
    int32_t above = 0, last = -1;
    for (int32_t i = 0; i < c->n; i++) {
        if ((double)c->v[i].p < limit)
            continue;
        above++;
        if (last < 0 || candidate_before(&c->v[last], &c->v[i]))
            last = i;
    }
    if (above < 2)
        return;
    int32_t kept = 0;
    for (int32_t i = 0; i < c->n; i++) {
        if (i == last || (double)c->v[i].p < limit)
            c->v[kept++] = c->v[i];
    }
    c->n = kept;
}

void candidates_limit_surprise(candidates *c, float mu)
{
    double sum = 0.0;
    int32_t best = candidates_best(c), kept = 0;
    candidate likeliest = c->v[best];
    for (int32_t i = 0; i < c->n; i++)
        sum += (double)c->v[i].p;
    for (int32_t i = 0; i < c->n; i++) {
        if (!(-log2((double)c->v[i].p / sum) > (double)mu))
            c->v[kept++] = c->v[i];
    }
    if (kept == 0)
        c->v[kept++] = likeliest;
    c->n = kept;
}

int32_t candidates_best(const candidates *c)
{
    int32_t best = 0;
    for (int32_t i = 1; i < c->n && !c->sorted; i++)
        best = candidate_before(&c->v[i], &c->v[best]) ? i : best;
    return best;
}

int32_t candidates_draw(const candidates *c, double sum, double u)
{
    double target = u * sum, running = 0.0;
    int32_t last = 0;
    for (int32_t i = 0; i < c->n; i++) {
        if (!(c->v[i].p > 0.0f))
            continue;
        running += (double)c->v[i].p;
        last = i;
        if (running > target)
            return i;
    }
    return last; /* rounding: the sum was reached a hair early */
}
