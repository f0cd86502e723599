/* Panels with axes, ticks and lines. A panel knows nothing of what its numbers mean. */
#ifndef VIEW_CHART_H
#define VIEW_CHART_H

#include "view/canvas.h"

#define CHART_MOST_TICKS 16

/* Points of x ascending; every y is a number. Not owned. */
typedef struct chart_series {
    const double *x, *y; /* [n] */
    size_t n;
    int colour;                /* CANVAS_SERIES + ... */
    bool faint;                /* what lies behind a smoothed line: thin, cut where it leaves the others' range */
    bool apart;                /* points that no line joins, rings where `ring` is set */
    const char *const *labels; /* [n], or NULL: their names, which stand beside them where there is room */
    bool dots;                 /* few points: each is marked */
    double width;              /* of the line; 0: the usual one. Wider ones below show where lines lie on one another */
    const char *mark;          /* not NULL: one point, drawn large, with this text in the upper right corner */
    bool ring;                 /* the mark is a ring, so that one around a disc shows both; otherwise a disc */
} chart_series;

typedef struct chart_panel {
    const char *title, *x_name;
    const chart_series *series;
    int n_series;
    double low_y, high_y; /* of the axis; both 0: as the values need */
    bool from_zero;       /* 0 belongs to the axis */
    bool whole_x;         /* only whole numbers stand at the x axis */
    bool log_y;           /* powers of ten are equally far apart; every y is above 0 */
    bool log_x;           /* likewise */
    bool room_x;          /* points stand away from the ends of the x axis */
    const double *cursor; /* not NULL: an upright line at this x */
    bool no_ends;         /* the last values are not written at the ends of the lines */
    bool turkish;         /* decimal comma */
} chart_panel;

/* Round numbers (1, 2 or 5 times a power of ten apart), at most `most` of them, inside low..high; how many. */
int chart_ticks(double low, double high, int most, double out[CHART_MOST_TICKS]);
/* Round numbers for an axis of powers of ten, the range given as logarithms to the base 10: 1, 2, 5 and 10 times, or whole powers
 * where that would be more than `most`; how many. */
int chart_log_ticks(double low, double high, int most, double out[CHART_MOST_TICKS]);
/* The means over neighbouring values, twice, so that a spike becomes a hill and not a table. once, out [n]. */
void chart_smooth(const double *y, size_t n, double *once, double *out);
/* A number with as many digits as steps of `step` need (step 0: four significant ones), "12k", "3e-4"; returns out. */
char *chart_number(double v, double step, bool turkish, char *out, size_t out_size);
/* The panel inside area; the last value of each line stands at its end, unless no_ends. */
void chart_draw(canvas *c, box area, const chart_panel *p);
/* Names with their colours, beginning at (x, y), wrapped at x + width; returns the y below. draw false: only measures. */
double chart_legend(canvas *c, double x, double y, double width, const char *const *names, int n, bool draw);

#endif
