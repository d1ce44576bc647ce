/* Antialiased bilinear resizing of a stream of rows, bit for bit that of Pillow
 * (Image.resize(size, BILINEAR, box)): a triangle as wide as a source pixel of the smaller image,
 * weights rounded to 22 bits, first across and then down, each pass rounded to 8 bits.
 *
 * Source rows come in one after another and are used at once: what is kept is the handful of rows,
 * already resized across, that an output row can need. So a decoder never has to hold its image.
 *
 * One thread; buffers grow and are kept. */
#ifndef APD_WORKER_DATA_RESIZE_H
#define APD_WORKER_DATA_RESIZE_H

#include "base/err.h"
#include "worker/data/resize_lanes.h"

#include <stddef.h>
#include <stdint.h>

/* One direction: `size` source pixels become `out` pixels, of which only `count` from `first` on
 * are wanted. Source pixels outside of [0, size) count for nothing. */
struct apd_axis {
    int size;
    int out;
    int first, count; /* count >= 1 */
};

enum apd_layout {
    APD_LAYOUT_INTERLEAVED, /* [h][w][3] */
    APD_LAYOUT_PLANAR,      /* [3][h][w] */
};

/* What is read of the source. */
struct apd_resize_source {
    int x, w, y, h; /* pixels: columns x to x + w - 1 of rows y to y + h - 1 */
    int row_px;     /* a row handed in must be readable for this many pixels, >= w */
};

struct apd_resizer;

/* lanes NULL: the fastest that the machine has. */
APD_MUST_USE enum apd_code apd_resizer_create(const struct apd_resize_lanes *lanes,
                                              struct apd_resizer **out, struct apd_err *err);
/* NULL ok; nulls. */
void apd_resizer_destroy(struct apd_resizer **resizer);

/* Starts an image of x.count by y.count pixels, mirrored if flip. `out` takes 3 * x.count * y.count
 * bytes, row by row as they are done; all of them once the last source row is in. */
APD_MUST_USE enum apd_code apd_resizer_start(struct apd_resizer *resizer, const struct apd_axis *x,
                                             const struct apd_axis *y, int flip,
                                             enum apd_layout layout, uint8_t *out,
                                             struct apd_resize_source *out_source,
                                             struct apd_err *err);

/* The next source row, from row source.y on: four bytes a pixel (R G B and any), starting with
 * column source.x. Rows beyond the last one do nothing. */
void apd_resizer_row(struct apd_resizer *resizer, const uint8_t *row);

#endif
