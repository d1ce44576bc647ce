/* Which part of an image is used, as numbers: torchvision's RandomResizedCrop and RandomErasing,
 * and its Resize and CenterCrop of evaluation. Pure; reads no pixel. */
#ifndef APD_WORKER_DATA_CROP_BOX_H
#define APD_WORKER_DATA_CROP_BOX_H

#include "worker/data/draw.h"

struct apd_box {
    int left, top, w, h;
};

/* RandomResizedCrop's part of a w x h image: 0.08 to 1 of its area, 3/4 to 4/3 as wide as high; the
 * largest central part within that ratio if ten draws do not fit. Never empty, always inside. */
struct apd_box apd_crop_box(const struct apd_draw_place *place, int w, int h);

/* RandomErasing's part: 0.02 to 0.33 of the area, 0.3 to 3.3 as high as wide, smaller than the
 * image both ways. Empty (w = 0) if ten draws do not fit. */
struct apd_box apd_erase_box(const struct apd_draw_place *place, int w, int h);

/* Resize(shorter) and CenterCrop(crop): the image is resized to resized_w x resized_h, then the
 * square of `crop` pixels at (left, top) of that is taken, black outside: left and top are below 0
 * where the resized image is smaller than the square. */
struct apd_eval_geometry {
    int resized_w, resized_h;
    int left, top;
};

/* All arguments > 0. */
struct apd_eval_geometry apd_eval_geometry(int w, int h, int shorter, int crop);

#endif
