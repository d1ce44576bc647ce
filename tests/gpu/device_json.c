/* Prints the first GPU's properties as cuDNN writes them down: what tests plan with where there is
 * no GPU (tests/emu/devices). */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/dnn.h"

#include <stdio.h>

int main(void)
{
    struct apd_dnn_options options = {0};
    struct apd_dnn *dnn = NULL;
    struct apd_err err = {0};
    int count;

    if (apd_cuda_devices(&count, &err) != APD_OK ||
        apd_dnn_create(&options, &dnn, &err) != APD_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return apd_exit_status(err.code);
    }
    puts(apd_dnn_device_json(dnn));
    apd_dnn_destroy(&dnn);
    return 0;
}
