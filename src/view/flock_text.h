/* What pictures of a flock say, in both languages. */
#ifndef VIEW_FLOCK_TEXT_H
#define VIEW_FLOCK_TEXT_H

#include "view/flock.h"

typedef enum flock_label {
    FLOCK_SAY_TITLE,
    FLOCK_SAY_NOW, /* {n}: the step's number */
    FLOCK_SAY_NOBODY,
    FLOCK_SAY_SIZE,
    FLOCK_SAY_SIZE_NOTE,
    FLOCK_SAY_COLOUR,
    FLOCK_SAY_COLOUR_NOTE,
    FLOCK_SAY_LINES,
    FLOCK_SAY_LESS_ALIKE,
    FLOCK_SAY_ALIKE,
    FLOCK_SAY_ALIGNMENT,
    FLOCK_SAY_BY_LOT,
    FLOCK_SAY_COHESION,
    FLOCK_SAY_SEPARATION,
    FLOCK_SAY_VIOLATION,
    FLOCK_SAY_STEP, /* of the axis */
    FLOCK_SAY_GAME,
    FLOCK_SAY_POTENTIAL,
    FLOCK_SAY_GAP,
    FLOCK_SAY_MOVE,
    FLOCK_SAY_PLAY, /* of the page alone from here on */
    FLOCK_SAY_PAUSE,
    FLOCK_SAY_BACK,
    FLOCK_SAY_FORWARD,
    FLOCK_SAY_POSITION,
    FLOCK_SAY_SPEED,
    FLOCK_SAY_PER_SECOND,
    FLOCK_SAY_LAYER,
    FLOCK_SAY_LIGHT,
    FLOCK_SAY_DARK,
    FLOCK_SAY_LOAD,
    FLOCK_SAY_PRICE,
    FLOCK_SAY_NEIGHBOURS,
    FLOCK_SAY_SERVED, /* {n}: of the steps shown */
    FLOCK_SAY_KEYS,
    FLOCK_SAY_FIGURES,
    FLOCK_SAY_EXPERTS,
    FLOCK_SAY_NEAR,
    FLOCK_SAY_MOVES,
    FLOCK_LABELS
} flock_label;

const char *flock_say(const flock_scene *s, bool turkish, flock_label which);
const char *flock_label_key(flock_label which); /* "now", as the page calls it */
/* The same with a number in the place of {n}; returns out. */
char *flock_say_number(const flock_scene *s, bool turkish, flock_label which, uint64_t n, char *out, size_t out_size);

/* Added to out. */
void flock_say_subtitle(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish);
void flock_say_after(strbuf *out, const flock_scene *s, uint32_t step, bool turkish); /* which step a still shows */
void flock_say_kept(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish);
void flock_say_game(strbuf *out, const flock_layer *l, bool turkish);
void flock_say_notes(strbuf *out, const flock_scene *s, bool turkish);

#endif
