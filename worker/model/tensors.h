/* The named tensors of a network: names, shapes and order of a checkpoint, torchvision's names; the
 * auxiliary BN is "<bn>.aux_bn.<name>". Knows no values and no backend. */
#ifndef APD_WORKER_MODEL_TENSORS_H
#define APD_WORKER_MODEL_TENSORS_H

#include "worker/model/arch.h"

#include <stdint.h>

/* Parameter sets of the method. */
enum apd_set { APD_SET_SHARED, APD_SET_MAIN, APD_SET_AUX, APD_SETS };

enum apd_part {
    APD_PART_CONV,
    APD_PART_GAMMA,
    APD_PART_BETA,
    APD_PART_MEAN,
    APD_PART_VAR,
    APD_PART_FC_WEIGHT,
    APD_PART_FC_BIAS
};

/* One named tensor in canonical layout. */
struct apd_tensor_info {
    char name[2 * APD_LAYER_NAME];
    int dims;
    int64_t shape[4];
    size_t elems; /* product of shape */
    int is_stat;  /* running statistics, else weights */
    enum apd_part part;
    int layer; /* it belongs to; of the classifier: arch->layer_count */
    enum apd_set set;
    size_t at; /* first element in weights or stats; set by apd_params_tensor() only */
};

/* Tensor i of the list, in torchvision's order of layers: conv.weight, the BN's 4 vectors, then the
 * auxiliary BN's 4, and at the end fc. 0 past the end. */
int apd_arch_tensor(const struct apd_arch *arch, int has_aux, int i, struct apd_tensor_info *out);

#endif
