#include "worker/data/crop_box.h"

#include <math.h>

enum { TRIES = 10 };

static const double ratio_min = 3.0 / 4, ratio_max = 4.0 / 3;

struct range {
    double area_min, area_max;   /* of the image's */
    double ratio_min, ratio_max; /* width by height, log-uniform */
};

/* The first box of at most max_w x max_h among TRIES drawn from block `first` on; empty if none. */
static struct apd_box draw_box(const struct apd_draw_place *place, uint32_t first,
                               const struct range *range, int w, int h, int max_w, int max_h)
{
    double area = (double)w * h, from = log(range->ratio_min), to = log(range->ratio_max);

    for (uint32_t t = 0; t < TRIES; t++) {
        struct apd_philox v = apd_draw(place, first + t);
        double target = area * apd_draw_between(v.v[0], range->area_min, range->area_max);
        double ratio = exp(apd_draw_between(v.v[1], from, to));
        double box_w = rint(sqrt(target * ratio)), box_h = rint(sqrt(target / ratio));

        if (box_w >= 1 && box_w <= max_w && box_h >= 1 && box_h <= max_h)
            return (struct apd_box){
                .left = (int)apd_below(v.v[3], (uint32_t)(w - (int)box_w + 1)),
                .top = (int)apd_below(v.v[2], (uint32_t)(h - (int)box_h + 1)),
                .w = (int)box_w,
                .h = (int)box_h,
            };
    }
    return (struct apd_box){0};
}

/* The largest part in the middle whose ratio is allowed. */
static struct apd_box central_box(int w, int h)
{
    double ratio = (double)w / h;
    struct apd_box box = {.w = w, .h = h};

    if (ratio < ratio_min)
        box.h = (int)rint(w / ratio_min);
    else if (ratio > ratio_max)
        box.w = (int)rint(h * ratio_max);
    box.left = (w - box.w) / 2;
    box.top = (h - box.h) / 2;
    return box;
}

struct apd_box apd_crop_box(const struct apd_draw_place *place, int w, int h)
{
    const struct range range = {0.08, 1, ratio_min, ratio_max};
    struct apd_box box = draw_box(place, APD_DRAW_BOX, &range, w, h, w, h);

    return box.w > 0 ? box : central_box(w, h);
}

struct apd_box apd_erase_box(const struct apd_draw_place *place, int w, int h)
{
    const struct range range = {0.02, 0.33, 1 / 3.3, 1 / 0.3};

    return draw_box(place, APD_DRAW_ERASE_BOX, &range, w, h, w - 1, h - 1);
}

/* Where the middle `inner` of `outer` begins: halves to even, as Python rounds; padding is put on
 * the right where it is odd. */
static int middle(int outer, int inner)
{
    int room = outer - inner, half = room / 2;

    return room < 0 ? half : half + (room & half & 1);
}

struct apd_eval_geometry apd_eval_geometry(int w, int h, int shorter, int crop)
{
    int64_t side = shorter;
    int resized_w = w <= h ? shorter : (int)(side * w / h);
    int resized_h = w <= h ? (int)(side * h / w) : shorter;

    return (struct apd_eval_geometry){
        .resized_w = resized_w,
        .resized_h = resized_h,
        .left = middle(resized_w, crop),
        .top = middle(resized_h, crop),
    };
}
