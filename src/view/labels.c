#include "view/labels.h"

void labels_take(labels *l, box at)
{
    if (l->n_taken < l->most)
        l->taken[l->n_taken++] = at;
}

static bool is_free(const labels *l, box b)
{
    const box *in = &l->inside;
    if (b.x < in->x || b.x + b.w > in->x + in->w || b.y < in->y || b.y + b.h > in->y + in->h)
        return false;
    for (int32_t i = 0; i < l->n_taken; i++) {
        const box *t = &l->taken[i];
        if (b.x < t->x + t->w && t->x < b.x + b.w && b.y < t->y + t->h && t->y < b.y + b.h)
            return false;
    }
    return true;
}

void labels_put(labels *l, double x, double y, double apart, bool left_first, const char *text, canvas_font font,
                canvas_colour colour)
{
    const double w = canvas_text_width(l->c, text, font) + 4, h = font.size + 2, r = apart;
    const box right = {x + r, y - h / 2, w, h}, left = {x - r - w, y - h / 2, w, h};
    const box tries[] = {left_first ? left : right, left_first ? right : left,        {x - w / 2, y - r - h, w, h},
                         {x - w / 2, y + r, w, h},  {x + r * 0.7, y + r * 0.5, w, h}, {x - r * 0.7 - w, y + r * 0.5, w, h}};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const box *at = &tries[i];
        if (!is_free(l, *at))
            continue;
        const double px[4] = {at->x, at->x + w, at->x + w, at->x}, py[4] = {at->y + 1, at->y + 1, at->y + h - 1, at->y + h - 1};
        canvas_shape(l->c, px, py, 4, canvas_theme(l->c, CANVAS_PANEL), 0.78);
        canvas_text(l->c, at->x + 2, at->y + font.size - 1, text, font, CANVAS_LEFT, colour);
        labels_take(l, *at);
        return;
    }
}
