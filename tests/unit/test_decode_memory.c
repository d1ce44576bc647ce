/* Decoding when memory ends: every allocation, the libraries' too, fails once, and from each on all
 * fail. The allocator is replaced for the whole process, so this is not built under a sanitizer,
 * which brings its own. */
#include "tests/support/pictures.h"
#include "worker/data/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void __libc_free(void *p);

static int counting, taken, fail_at = -1, fail_all; /* number fail_at, and all after it */
static long held;                                   /* blocks */

static int must_fail(void)
{
    int nth = taken;

    if (!counting)
        return 0;
    taken++;
    if (fail_at < 0 || nth < fail_at || (nth > fail_at && !fail_all))
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t bytes)
{
    void *p = must_fail() ? NULL : __libc_malloc(bytes);

    held += p != NULL;
    return p;
}

void *calloc(size_t count, size_t bytes)
{
    void *p = must_fail() ? NULL : __libc_calloc(count, bytes);

    held += p != NULL;
    return p;
}

void *realloc(void *old, size_t bytes)
{
    void *p = must_fail() ? NULL : __libc_realloc(old, bytes);

    held += p != NULL && old == NULL;
    return p;
}

void free(void *p)
{
    held -= p != NULL;
    __libc_free(p);
}

struct file {
    uint8_t *bytes;
    size_t size;
};

/* Everything from nothing; allocation number `nth` fails. */
static enum apd_code decode_once(const struct file *file, int nth, struct apd_err *err)
{
    const struct apd_view view = {.box = {3, 2, 50, 40}, .w = 24, .h = 20, .flip = 1};
    struct apd_decoder *decoder = NULL;
    struct apd_image image = {0};
    enum apd_code rc;

    *err = (struct apd_err){0};
    taken = 0;
    fail_at = nth;
    counting = 1;
    rc = apd_decoder_create(0, &decoder, err);
    if (rc == APD_OK)
        rc = apd_decode(decoder, file->bytes, file->size, &view, &image, err);
    counting = 0;
    apd_decoder_destroy(&decoder);
    apd_image_fini(&image);
    return rc;
}

static void check(const char *name, struct file file)
{
    struct apd_err err;
    long before = held;
    int allocations;

    if (decode_once(&file, -1, &err) != APD_OK)
        fail_msg("%s: %s", name, err.msg);
    allocations = taken;
    assert_true(allocations > 3);
    for (int i = 0; i < 2 * allocations; i++) {
        int nth = i / 2;
        enum apd_code rc;

        fail_all = i % 2;
        rc = decode_once(&file, nth, &err);
        /* libjpeg asks for less where it did not get all. */
        if (rc != APD_NOMEM && (fail_all || rc != APD_OK))
            fail_msg("%s: allocation %d of %d failed: %s \"%s\"", name, nth + 1, allocations,
                     apd_code_name(rc), err.msg);
        if (held != before)
            fail_msg("%s: allocation %d of %d failed: %ld blocks were kept", name, nth + 1,
                     allocations, held - before);
    }
    free(file.bytes);
}

static void every_failed_allocation_is_told_and_nothing_kept(void **state)
{
    const struct picture_jpeg jpegs[] = {{.w = 61, .h = 45, .h_samp = 2, .v_samp = 2},
                                         {.w = 61, .h = 45, .h_samp = 2, .progressive = 1},
                                         {.w = 61, .h = 45, .arithmetic = 1},
                                         {.w = 61, .h = 45, .channels = 4}};
    const struct picture_png pngs[] = {
        {61, 45, 2, 8, 0}, {61, 45, 0, 16, 0}, {61, 45, 3, 4, 0}, {61, 45, 6, 8, 1}};
    struct file file;

    (void)state;
    for (size_t i = 0; i < sizeof jpegs / sizeof *jpegs; i++) {
        file.bytes = picture_make_jpeg(&jpegs[i], &file.size);
        check("JPEG", file);
    }
    for (size_t i = 0; i < sizeof pngs / sizeof *pngs; i++) {
        file.bytes = picture_make_png(&pngs[i], &file.size);
        check("PNG", file);
    }
    /* libwebp 1.2.4 calls a lossless image damaged that it has no memory for, and crashes on alpha.
     */
    file.bytes = picture_make_webp(61, 45, 0, 0, &file.size);
    check("WebP", file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_told_and_nothing_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
