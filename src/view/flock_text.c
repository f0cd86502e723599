#include "view/flock_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "view/chart.h"

typedef struct said {
    const char *key;
    const char *experts[2], *others[2]; /* English, Turkish; others NULL: the same */
} said;

static const said labels[FLOCK_LABELS] = {
    [FLOCK_SAY_TITLE] = {"title", {"The flock of experts", "Uzmanların sürüsü"}, {"The flock of candidates", "Adayların sürüsü"}},
    [FLOCK_SAY_NOW] = {"now",
                       {"Token {n} and its experts", "{n}. belirteç ve uzmanları"},
                       {"Step {n} and its choice", "{n}. adım ve seçimi"}},
    [FLOCK_SAY_NOBODY] = {"nobody", {"nobody", "kimse"}, {NULL}},
    [FLOCK_SAY_SIZE] = {"size",
                        {"Size: share of the recent choices", "Büyüklük: son seçimlerdeki pay"},
                        {"Size: load", "Büyüklük: yük"}},
    [FLOCK_SAY_SIZE_NOTE] = {"size_note",
                             {"1: as often as the others on average. Older choices fade.",
                              "1: ötekilerin ortalaması kadar sık. Eski seçimler sönümlenir."},
                             {"", ""}},
    [FLOCK_SAY_COLOUR] = {"colour",
                          {"Colour: balancing price (nats)", "Renk: dengeleyici fiyat (nat)"},
                          {"Colour: price", "Renk: fiyat"}},
    [FLOCK_SAY_COLOUR_NOTE] =
        {"colour_note",
         {"Orange: chosen more often than the others so far, so balancing would make it dearer. Blue: less often.",
          "Turuncu: şimdiye dek ötekilerden sık seçildi; dengeleme onu pahalılaştırırdı. Mavi: daha seyrek."},
         {"", ""}},
    [FLOCK_SAY_LINES] = {"lines", {"Lines: neighbours", "Çizgiler: komşular"}, {NULL}},
    [FLOCK_SAY_LESS_ALIKE] = {"less_alike", {"less alike", "daha az benzer"}, {"far", "uzak"}},
    [FLOCK_SAY_ALIKE] = {"alike", {"alike", "benzer"}, {"near", "yakın"}},
    [FLOCK_SAY_ALIGNMENT] = {"alignment", {"Alignment", "Hizalanma"}, {NULL}},
    [FLOCK_SAY_BY_LOT] = {"by_lot", {"by lot", "kurayla"}, {NULL}},
    [FLOCK_SAY_COHESION] = {"cohesion", {"Cohesion", "Toplanma"}, {NULL}},
    [FLOCK_SAY_SEPARATION] = {"separation", {"Separation", "Ayrılma"}, {NULL}},
    [FLOCK_SAY_VIOLATION] = {"violation", {"Load: busiest over mean, - 1", "Yük: en yoğun / ortalama, - 1"}, {NULL}},
    [FLOCK_SAY_STEP] = {"step", {"token", "belirteç"}, {"step", "adım"}},
    [FLOCK_SAY_GAME] = {"game", {"The game of the batches", "Yığınların oyunu"}, {"The game", "Oyun"}},
    [FLOCK_SAY_POTENTIAL] = {"potential", {"Potential by move", "Hamle hamle potansiyel"}, {NULL}},
    [FLOCK_SAY_GAP] = {"gap", {"Nash gap: what one player could gain", "Nash açığı: bir oyuncunun kazanabileceği"}, {NULL}},
    [FLOCK_SAY_MOVE] = {"move", {"move", "hamle"}, {NULL}},
    [FLOCK_SAY_PLAY] = {"play", {"Play", "Oynat"}, {NULL}},
    [FLOCK_SAY_PAUSE] = {"pause", {"Pause", "Duraklat"}, {NULL}},
    [FLOCK_SAY_BACK] = {"back", {"One step back", "Bir adım geri"}, {NULL}},
    [FLOCK_SAY_FORWARD] = {"forward", {"One step forward", "Bir adım ileri"}, {NULL}},
    [FLOCK_SAY_POSITION] = {"position", {"Token shown", "Gösterilen belirteç"}, {"Step shown", "Gösterilen adım"}},
    [FLOCK_SAY_SPEED] = {"speed", {"Speed", "Hız"}, {NULL}},
    [FLOCK_SAY_PER_SECOND] = {"per_second", {"{n} tokens/s", "{n} belirteç/s"}, {"{n} steps/s", "{n} adım/s"}},
    [FLOCK_SAY_LAYER] = {"layer", {"Layer", "Katman"}, {NULL}},
    [FLOCK_SAY_LIGHT] = {"light", {"Light", "Açık"}, {NULL}},
    [FLOCK_SAY_DARK] = {"dark", {"Dark", "Koyu"}, {NULL}},
    [FLOCK_SAY_LOAD] = {"load", {"load", "yük"}, {NULL}},
    [FLOCK_SAY_PRICE] = {"price", {"price", "fiyat"}, {NULL}},
    [FLOCK_SAY_NEIGHBOURS] = {"neighbours", {"neighbours", "komşular"}, {NULL}},
    [FLOCK_SAY_SERVED] = {"served",
                          {"{n} of the tokens shown", "gösterilen belirteçlerin {n} tanesi"},
                          {"{n} of the steps", "adımların {n} tanesi"}},
    [FLOCK_SAY_KEYS] = {"keys",
                        {"Space: play or pause. Arrows: step (with Shift: ten). [ and ]: layer. Click a bird to keep it.",
                         "Boşluk: oynat, duraklat. Oklar: adım (Shift ile on). [ ve ]: katman. Tutmak için bir kuşa tıklayın."},
                        {"Space: play or pause. Arrows: step (with Shift: ten). Click a bird to keep it.",
                         "Boşluk: oynat, duraklat. Oklar: adım (Shift ile on). Tutmak için bir kuşa tıklayın."}},
    [FLOCK_SAY_FIGURES] = {"figures", {"Figures", "Sayılar"}, {NULL}},
    [FLOCK_SAY_EXPERTS] = {"experts", {"experts", "uzman"}, {"candidates", "aday"}},
    [FLOCK_SAY_NEAR] = {"near", {"neighbours kept", "korunan komşu"}, {NULL}},
    [FLOCK_SAY_MOVES] = {"moves", {"moves", "hamle"}, {NULL}},
};

const char *flock_say(const flock_scene *s, bool turkish, flock_label which)
{
    const said *l = &labels[which];
    if (which == FLOCK_SAY_TITLE && s->title)
        return s->title;
    return s->experts || !l->others[0] ? l->experts[turkish] : l->others[turkish];
}

const char *flock_label_key(flock_label which) { return labels[which].key; }

char *flock_say_number(const flock_scene *s, bool turkish, flock_label which, uint64_t n, char *out, size_t out_size)
{
    const char *text = flock_say(s, turkish, which), *at = strstr(text, "{n}");
    if (at)
        snprintf(out, out_size, "%.*s%llu%s", (int)(at - text), text, (unsigned long long)n, at + strlen("{n}"));
    else
        snprintf(out, out_size, "%s", text);
    return out;
}

void flock_say_subtitle(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish)
{
    if (!s->experts) {
        strbuf_printf(out, turkish ? "%d aday." : "%d candidates.", l->n);
        return;
    }
    strbuf_printf(out,
                  turkish ? "%s, katman %d: %d uzman, bir belirtece %u tanesi hizmet eder."
                          : "%s, layer %d: %d experts, %u of them serve a token.",
                  s->model, l->index, l->n, s->n_used);
    strbuf_printf(out, turkish ? " %llu ile %llu arasındaki belirteçler (toplam %llu)." : " Tokens %llu to %llu of %llu.",
                  (unsigned long long)s->first + 1, (unsigned long long)s->first + s->n_steps, (unsigned long long)s->n_all);
    if (s->random)
        strbuf_add_str(out, str_of(turkish ? " Belirteçler burada normal dağılımlı rastgele satırlardır."
                                           : " Tokens here are rows of normal random numbers."));
}

void flock_say_after(strbuf *out, const flock_scene *s, uint32_t step, bool turkish)
{
    const unsigned long long n = (unsigned long long)s->first + step + 1;
    if (s->experts)
        strbuf_printf(out, turkish ? " Kuşlar %llu. belirteçten sonraki hâlleriyle." : " The birds are drawn after token %llu.", n);
    else if (s->n_steps)
        strbuf_printf(out, turkish ? " %llu. adım (toplam %llu)." : " Step %llu of %llu.", n, (unsigned long long)s->n_all);
}

void flock_say_kept(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish)
{
    char kept[32], chance[32];
    if (l->n_near == 0 || l->n_near == l->n - 1) /* of all others all are always kept */
        return;
    chart_number(l->kept, 0.1, turkish, kept, sizeof kept);
    chart_number((double)l->n_near * l->n_near / fmax(1, l->n - 1), 0.1, turkish, chance, sizeof chance);
    if (turkish)
        strbuf_printf(
            out,
            "Her kuşun en yakın %d komşusundan (%s) ortalama %s tanesi burada da en yakın %d kuş arasındadır; rastlantıyla %s olurdu.",
            l->n_near, s->likeness ? "yönlendirici satırlarının açısı" : "bütün özelliklerde uzaklık", kept, l->n_near, chance);
    else
        strbuf_printf(
            out, "Of the %d nearest of each bird (%s), %s on average are among the %d nearest here too; by chance %s would be.",
            l->n_near, s->likeness ? "angle between rows of the router" : "distance in all features", kept, l->n_near, chance);
}

void flock_say_game(strbuf *out, const flock_layer *l, bool turkish)
{
    const flock_game *g = &l->game;
    char price[32], before[32], after[32], gap[32];
    if (!g->n)
        return;
    chart_number(g->potential[0], 0, turkish, before, sizeof before);
    chart_number(g->potential[g->n - 1], 0, turkish, after, sizeof after);
    chart_number(g->gap ? g->gap[g->n - 1] : 0, 0, turkish, gap, sizeof gap);
    chart_number(g->price, 0, turkish, price, sizeof price);
    if (!g->n_players) {
        strbuf_printf(out, turkish ? "%zu hamle; potansiyel %s iken %s." : "%zu moves; potential %s to %s.", g->n - 1, before,
                      after);
        return;
    }
    strbuf_printf(
        out,
        turkish
            ? "%d belirteç, bir yığında %d tane, uzman yüklemeyi paylaşır: yalnız kendisinin yüklediği uzman ona %s, ötekiler bedavadır. "
              "En iyisi dışındaki bir uzmanını onun komşusuyla değiştirebilir; ağırlığını yitirir. Kimse kazanamayana dek sırayla yanıt "
              "verirler: %zu hamle, %d tur; yüklenen uzman %d (önce %d), potansiyel %s iken %s, sonda açık %s: bir Nash dengesi."
            : "%d tokens, %d in a batch, share the loading of experts: one that a token loads alone costs it %s, the others are free. "
              "It may exchange one expert, not its best, for a neighbour of that expert, and loses its weight. They answer in turn "
              "until nobody gains: %zu moves in %d sweeps, %d experts loaded instead of %d, potential %s to %s, gap %s at the end: a "
              "Nash equilibrium.",
        g->n_players, g->batch, price, g->n - 1, g->n_sweeps, g->n_after, g->n_before, before, after, gap);
}

void flock_say_notes(strbuf *out, const flock_scene *s, bool turkish)
{
    if (!s->n_steps)
        return;
    if (s->experts)
        strbuf_add_str(out, str_of(turkish ? "Belirteç, ona hizmet eden uzmanların ortasındadır. "
                                           : "A token is in the middle of the experts that serve it. "));
    strbuf_add_str(
        out,
        str_of(
            turkish
                ? "Seçilen kuşlar yolun üçte birini ona doğru, ötekiler sekizde birini eve doğru uçar; kuşu başka hiçbir şey oynatmaz. "
                  "Hizalanma: kuşun hızı ile komşularının ortalama hızının kosinüsü (gri: hızlar kurayla dağıtılınca). Toplanma: "
                  "komşuların ortasına, ayrılma: en yakın komşuya uzaklık; ikisi de sürünün genişliği biriminde."
                : "The birds that are chosen fly a third of the way to it, all others an eighth of the way home; nothing else moves a "
                  "bird. Alignment: cosine of a bird's velocity with the mean velocity of its neighbours (grey: velocities dealt out "
                  "by lot). Cohesion: distance to the centre of the neighbours, separation: to the nearest one, both in widths of "
                  "the flock."));
    if (s->experts)
        strbuf_add_str(
            out,
            str_of(
                turkish
                    ? " Fiyatlar, eğitimdeki gibi sönümlenen yükü izler (belirteç ve fazla yük birimi başına 0,001); burada kimse ödemez."
                    : " Prices follow the fading load as in training (0.001 per token and unit of excess), as if somebody paid them."));
}
