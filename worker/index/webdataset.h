/* What WebDataset says about the members of a shard: those with equal key are one sample. The key
 * is the path up to the first dot of the last name; what follows the dot tells the role. Pure. */
#ifndef APD_WORKER_INDEX_WEBDATASET_H
#define APD_WORKER_INDEX_WEBDATASET_H

#include <stddef.h>
#include <stdint.h>

enum apd_wds_role {
    APD_WDS_OTHER,
    APD_WDS_IMAGE, /* .jpg .jpeg .png .webp, in any case */
    APD_WDS_CLS,   /* .cls: the label as text */
    APD_WDS_JSON,  /* .json: an object whose member "cls", or else "label", may be the label */
};

/* Returns 0 for a name without a key: hidden, or without a dot. */
int apd_wds_name(const char *name, size_t *out_key_size, enum apd_wds_role *out_role);

/* Both return NULL, or what is wrong with the text. Labels: 0 to APD_CLASSES_MAX - 1. */
const char *apd_wds_label_text(const char *text, size_t size, int32_t *out_label);
/* *out_label is -1 if the object has none. */
const char *apd_wds_label_json(const char *text, size_t size, int32_t *out_label);

#endif
