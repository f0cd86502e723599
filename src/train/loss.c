/*
 * The balancing loss, in two passes over the batch: what belongs to the batch as a whole (loads, deviation of the scores), then
 * token by token values and gradient. Sequences are the units of parallel work; each leaves its sums in its own place and these
 * are added in the order of the sequences. Rows of experts are padded to whole lanes with experts that nobody chooses.
 */
#include "train/loss.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "kernels/lanes.h"
#include "theorem/neighbours.h"

#define RING (LOSS_SWARM_TOKENS + 1)
#define ABSENT -1e30f /* score of a padding expert */
#define FADED 1e-12f  /* recency below this is 0: no arithmetic with subnormal numbers */

/* Sums over the tokens of a sequence. */
typedef struct sums {
    double balance, cache, swarm, nash, z, entropy;
    double score, square; /* of scores less the batch's first, for the deviation */
} sums;

typedef struct job {
    const loss_input *in;
    const loss_config *c;
    team *workers;
    float *dz;
    float scale; /* of the gradient: grad_scale / tokens */
    float beta;
    int padded;       /* experts in whole lanes */
    float *load;      /* [padded]: N f */
    float *price;     /* [padded] */
    float *flock;     /* [n_experts][padded]: A turned round, so that sums run along lanes; NULL: identity */
    sums *total;      /* [n_sequences] */
    int32_t *count;   /* [n_sequences][n_experts]: choices that fell on each */
    float *sequences; /* [n_sequences][ROWS][padded] */
} job;

/* The rows of a sequence, [padded] each. */
enum { ROW_RHO, ROW_SCORE = ROW_RHO + RING, ROW_SHIFTED, ROW_GAP, ROW_RECENCY, ROW_MEAN, ROW_AHEAD, ROWS };

/* ---- arithmetic along lanes ---- */

/* exp(x) for x <= 0; 0 below -80, which padding is. */
static inline float exp_below(float x) { return x < -80.0f ? 0.0f : lanes_exp(x); }

static inline float largest(const float *x, int n)
{
    float lane[LANES], most = x[0];
    memcpy(lane, x, sizeof lane);
    for (int e = LANES; e < n; e += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = x[e + l] > lane[l] ? x[e + l] : lane[l];
    for (int l = 0; l < LANES; l++)
        most = lane[l] > most ? lane[l] : most;
    return most;
}

/* p = exp(x - shift); returns the sum. */
static inline float exponentials(const float *x, float shift, float *p, int n)
{
    float lane[LANES] = {0};
    for (int e = 0; e < n; e += LANES)
        for (int l = 0; l < LANES; l++) {
            p[e + l] = exp_below(x[e + l] - shift);
            lane[l] += p[e + l];
        }
    return lanes_sum(lane);
}

/* ---- what belongs to the whole batch ---- */

static void survey(job *j, size_t s)
{
    const loss_input *in = j->in;
    size_t n = (size_t)in->n_tokens, experts = (size_t)in->n_experts, used = (size_t)in->n_used;
    const float *z = in->z + s * n * experts, first = in->z[0];
    int32_t *count = j->count + s * experts;
    sums *total = &j->total[s];
    *total = (sums){0};
    memset(count, 0, experts * sizeof *count);
    for (size_t i = 0; i < n * used; i++)
        count[in->chosen[s * n * used + i]]++;
    for (size_t t = 0; t < n; t++) {
        float score = 0.0f, square = 0.0f;
        for (size_t e = 0; e < experts; e++) {
            float x = z[t * experts + e] - first;
            score += x;
            square += x * x;
        }
        total->score += (double)score;
        total->square += (double)square;
    }
}

/* Loads and beta from the sums of the sequences; MaxVio. */
static double conclude_survey(job *j)
{
    const loss_input *in = j->in;
    size_t experts = (size_t)in->n_experts, most = 0;
    double tokens = (double)in->n_sequences * in->n_tokens, scores = tokens * in->n_experts, score = 0.0, square = 0.0;
    for (int s = 0; s < in->n_sequences; s++) {
        score += j->total[s].score;
        square += j->total[s].square;
    }
    double variance = square / scores - score / scores * (score / scores);
    j->beta = (float)((double)j->c->beta * sqrt(variance > 0.0 ? variance : 0.0));
    for (size_t e = 0; e < experts; e++) {
        size_t choices = 0;
        for (size_t s = 0; s < (size_t)in->n_sequences; s++)
            choices += (size_t)j->count[s * experts + e];
        j->load[e] = (float)((double)choices * in->n_experts / (tokens * in->n_used));
        most = choices > most ? choices : most;
    }
    return (double)most * in->n_experts / (tokens * in->n_used) - 1.0;
}

/* ---- token by token ---- */

/* ahead = A mean of the last rho. Its length is of no consequence to the cosine: sums instead of means. */
static void look_ahead(const job *j, float *rows, int t)
{
    int n = j->padded;
    float *mean = rows + ROW_MEAN * n, *ahead = rows + ROW_AHEAD * n;
    memset(mean, 0, (size_t)n * sizeof *mean);
    for (int back = 1; back <= LOSS_SWARM_TOKENS && back <= t; back++) {
        const float *rho = rows + (t - back) % RING * n;
        for (int e = 0; e < n; e++)
            mean[e] += rho[e];
    }
    if (!j->flock) {
        memcpy(ahead, mean, (size_t)n * sizeof *ahead);
        return;
    }
    for (int e = 0; e < n; e += LANES) {
        float lane[LANES] = {0};
        for (int from = 0; from < j->in->n_experts; from++)
            for (int l = 0; l < LANES; l++)
                lane[l] += mean[from] * j->flock[(size_t)from * (size_t)n + (size_t)(e + l)];
        memcpy(ahead + e, lane, sizeof lane);
    }
}

/* h = g max(a, h) */
static void fade(const job *j, float *recency, const int16_t *chosen)
{
    float g = j->c->recency;
    for (int e = 0; e < j->padded; e++) {
        float h = g * recency[e];
        recency[e] = h < FADED ? 0.0f : h;
    }
    for (int i = 0; i < j->in->n_used; i++)
        recency[chosen[i]] = g;
}

/*
 * With s = z - max z, L = log sum exp s, gap_e = log(rho_e / target_e) = price_e - beta h_e + L_target - L:
 *     KL = sum_e rho_e gap_e, exactly 0 without price and beta;  entropy = L - sum_e rho_e s_e
 * The gradient by z of a term with gradient q by rho is rho_e (q_e - sum_i rho_i q_i); q is
 *     N f_e,  h_e,  v_e / (|rho| |v|) - cos rho_e / |rho|^2 (its mean under rho is 0),  gap_e
 * and of (log sum exp z)^2 it is 2 log sum exp z rho_e.
 */
static void token(const job *j, float *rows, int t, const float *z, float *dz, sums *total)
{
    const loss_config *c = j->c;
    int n = j->padded, experts = j->in->n_experts;
    float *rho = rows + t % RING * n, *s = rows + ROW_SCORE * n, *shifted = rows + ROW_SHIFTED * n, *gap = rows + ROW_GAP * n;
    float *h = rows + ROW_RECENCY * n, *ahead = rows + ROW_AHEAD * n;
    memcpy(s, z, (size_t)experts * sizeof *s);
    float top = largest(s, n), beta = j->beta;
    for (int e = 0; e < n; e++) {
        s[e] -= top;
        gap[e] = j->price[e] - beta * h[e];
        shifted[e] = s[e] - gap[e];
    }
    float sum = exponentials(s, 0.0f, rho, n), part = 1.0f / sum, log_sum = logf(sum), log_z = top + log_sum;
    float top_target = largest(shifted, n);
    float log_ratio = top_target + logf(exponentials(shifted, top_target, shifted, n)) - log_sum;
    for (int e = 0; e < n; e++) {
        rho[e] *= part;
        gap[e] += log_ratio;
    }
    float balance = lanes_dot(rho, j->load, n), cache = lanes_dot(rho, h, n), kl = lanes_dot(rho, gap, n), cosine = 0.0f;
    float along = 0.0f, own = 0.0f; /* factors of v and rho in the cosine's gradient */
    if (t > 0) {
        look_ahead(j, rows, t);
        float length = lanes_dot(rho, rho, n), both = sqrtf(length) * sqrtf(lanes_dot(ahead, ahead, n));
        along = both > 0.0f ? 1.0f / both : 0.0f;
        cosine = lanes_dot(rho, ahead, n) * along;
        own = cosine / length;
    }
    total->balance += (double)balance;
    total->cache += (double)cache;
    total->swarm += (double)cosine;
    total->nash += (double)kl;
    total->z += (double)log_z * (double)log_z;
    total->entropy += (double)(log_sum - lanes_dot(rho, s, n));
    if (!dz)
        return;
    float mean = c->balance * balance - c->cache * cache + c->nash * kl - 2.0f * c->z * log_z;
    along *= c->swarm;
    own *= c->swarm;
    for (int e = 0; e < experts; e++) {
        float q = c->balance * j->load[e] - c->cache * h[e] - along * ahead[e] + own * rho[e] + c->nash * gap[e];
        dz[e] += j->scale * (rho[e] * (q - mean));
    }
}

static void sequence(job *j, size_t s)
{
    const loss_input *in = j->in;
    size_t experts = (size_t)in->n_experts;
    float *rows = j->sequences + s * ROWS * (size_t)j->padded;
    memset(rows, 0, ROWS * (size_t)j->padded * sizeof *rows);
    for (size_t e = 0; e < (size_t)j->padded; e++)
        rows[ROW_SCORE * (size_t)j->padded + e] = ABSENT;
    for (int t = 0; t < in->n_tokens; t++) {
        size_t at = s * (size_t)in->n_tokens + (size_t)t;
        token(j, rows, t, in->z + at * experts, j->dz ? j->dz + at * experts : NULL, &j->total[s]);
        fade(j, rows + ROW_RECENCY * j->padded, in->chosen + at * (size_t)in->n_used);
    }
}

/* ---- the batch ---- */

static void survey_some(void *ctx, int worker)
{
    job *j = ctx;
    (void)worker;
    for (uint32_t s = 0; (s = j->workers ? team_claim(j->workers) : s) < (uint32_t)j->in->n_sequences; s++)
        survey(j, s);
}

static void sequences_some(void *ctx, int worker)
{
    job *j = ctx;
    (void)worker;
    for (uint32_t s = 0; (s = j->workers ? team_claim(j->workers) : s) < (uint32_t)j->in->n_sequences; s++)
        sequence(j, s);
}

static void run(job *j, team_fn fn)
{
    if (j->workers)
        team_run(j->workers, fn, j);
    else
        fn(j, 0);
}

/* Places of a job in the scratch; NULL only counts. Returns the bytes. */
static size_t lay_out(job *j, const loss_input *in, bool with_flock, void *scratch)
{
    size_t used = 0, experts = (size_t)in->n_experts, sequences = (size_t)in->n_sequences;
    size_t padded = (experts + LANES - 1) / LANES * LANES;
    j->padded = (int)padded;
    j->load = mem_carve(scratch, &used, padded * sizeof *j->load);
    j->price = mem_carve(scratch, &used, padded * sizeof *j->price);
    j->flock = with_flock ? mem_carve(scratch, &used, experts * padded * sizeof *j->flock) : NULL;
    j->total = mem_carve(scratch, &used, sequences * sizeof *j->total);
    j->count = mem_carve(scratch, &used, sequences * experts * sizeof *j->count);
    j->sequences = mem_carve(scratch, &used, sequences * ROWS * padded * sizeof *j->sequences);
    return used;
}

size_t loss_scratch_bytes(const loss_input *in)
{
    job j = {0};
    return lay_out(&j, in, true, NULL);
}

/* Padded copies of price and A. */
static void copy_constants(job *j)
{
    const loss_input *in = j->in;
    size_t experts = (size_t)in->n_experts, padded = (size_t)j->padded;
    memset(j->load, 0, padded * sizeof *j->load);
    memset(j->price, 0, padded * sizeof *j->price);
    if (in->price)
        memcpy(j->price, in->price, experts * sizeof *j->price);
    for (size_t from = 0; j->flock && from < experts; from++)
        for (size_t e = 0; e < padded; e++)
            j->flock[from * padded + e] = e < experts ? in->flock[e * experts + from] : 0.0f;
}

void loss_router(const loss_input *in, const loss_config *c, float grad_scale, float *dz, loss_values *out, void *scratch,
                 team *workers)
{
    double tokens = (double)in->n_sequences * in->n_tokens;
    job j = {.in = in, .c = c, .workers = workers, .dz = dz, .scale = (float)((double)grad_scale / tokens)};
    sums all = {0};
    lay_out(&j, in, in->flock != NULL, scratch);
    copy_constants(&j);
    run(&j, survey_some);
    double violation = conclude_survey(&j);
    run(&j, sequences_some);
    for (int s = 0; s < in->n_sequences; s++) {
        all.balance += j.total[s].balance;
        all.cache += j.total[s].cache;
        all.swarm += j.total[s].swarm;
        all.nash += j.total[s].nash;
        all.z += j.total[s].z;
        all.entropy += j.total[s].entropy;
    }
    *out = (loss_values){.balance = all.balance / tokens,
                         .cache = all.cache / tokens,
                         .swarm = all.swarm / tokens,
                         .nash = all.nash / tokens,
                         .z = all.z / tokens,
                         .entropy = all.entropy / tokens,
                         .violation = violation};
}

/* ---- what the terms are made from ---- */

float loss_recency(int n, int n_used, double cached)
{
    if (cached >= n)
        return 1.0f;
    if (!(cached > 0.0))
        return 0.0f;
    double stays = -log1p(-cached / n) * n / n_used;
    return (float)exp(-1.0 / stays);
}

dil_status loss_flock(const float *rows, int n_experts, int n_embd, float *flock, dil_error *err)
{
    swarm_graph g = {0};
    dil_status status = DIL_OK;
    int n = n_experts, k = n - 1 < SWARM_NEIGHBOURS ? n - 1 : SWARM_NEIGHBOURS;
    int32_t *lists = mem_calloc((size_t)n, SWARM_NEIGHBOURS * sizeof *lists, MEM_MISC);
    if (!lists)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "flock of the router: no memory for %d experts", n);
    if (status == DIL_OK && k > 0)
        status = swarm_nearest(rows, n, n_embd, SWARM_COSINE, k, NULL, lists, NULL, err);
    if (status == DIL_OK)
        status = swarm_graph_of(lists, n, k, &g, err);
    if (status != DIL_OK)
        goto done;
    memset(flock, 0, (size_t)n * (size_t)n * sizeof *flock);
    for (int i = 0; i < n; i++) {
        float *row = flock + (size_t)i * (size_t)n, degree = (float)(g.first[i + 1] - g.first[i]);
        row[i] = degree > 0.0f ? 0.5f : 1.0f;
        for (int64_t e = g.first[i]; e < g.first[i + 1]; e++)
            row[g.other[e]] = 0.5f / degree;
    }
done:
    swarm_graph_free(&g);
    mem_free(lists);
    return status;
}
