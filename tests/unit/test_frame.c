/* Frames: every way of cutting the bytes, every wrong length. */
#include "proto/advprop.pb-c.h"
#include "proto/frame.h"
#include "proto/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Three frames of 5, 0 and 300 bytes in one stream. */
static size_t three_frames(uint8_t *out)
{
    static const uint32_t sizes[] = {5, 0, 300};
    size_t n = 0;

    for (unsigned f = 0; f < 3; f++) {
        n += apd_frame_header(sizes[f], out + n);
        for (uint32_t i = 0; i < sizes[f]; i++)
            out[n++] = (uint8_t)(f * 100 + i);
    }
    return n;
}

/* Feeds bytes[0, size) and counts the frames; checks their content as made by three_frames. */
static void feed_all(struct apd_frame_reader *reader, const uint8_t *bytes, size_t size,
                     unsigned *frames)
{
    static const uint32_t sizes[] = {5, 0, 300};
    struct apd_err err;

    while (size > 0) {
        const uint8_t *frame;
        size_t used, frame_size;

        assert_int_equal(apd_frame_feed(reader, bytes, size, &used, &frame, &frame_size, &err),
                         APD_OK);
        assert_true(used > 0);
        bytes += used;
        size -= used;
        if (frame == NULL)
            continue;
        assert_in_range(*frames, 0, 2);
        assert_int_equal(frame_size, sizes[*frames]);
        for (size_t i = 0; i < frame_size; i++)
            assert_int_equal(frame[i], (uint8_t)(*frames * 100 + i));
        (*frames)++;
    }
}

static void split_at_every_byte_gives_the_same_frames(void **state)
{
    uint8_t bytes[512];
    size_t size = three_frames(bytes);

    (void)state;
    for (size_t cut = 0; cut <= size; cut++) {
        struct apd_frame_reader reader = {.cap = 300};
        unsigned frames = 0;

        feed_all(&reader, bytes, cut, &frames);
        feed_all(&reader, bytes + cut, size - cut, &frames);
        assert_int_equal(frames, 3);
        assert_false(apd_frame_partial(&reader));
        apd_frame_reader_fini(&reader);
    }
}

static void single_bytes_give_the_same_frames(void **state)
{
    struct apd_frame_reader reader = {.cap = 300};
    uint8_t bytes[512];
    size_t size = three_frames(bytes);
    unsigned frames = 0;

    (void)state;
    for (size_t i = 0; i < size; i++)
        feed_all(&reader, bytes + i, 1, &frames);
    assert_int_equal(frames, 3);
    apd_frame_reader_fini(&reader);
}

static void partial_frame_is_told(void **state)
{
    static const uint8_t bytes[] = {0x83, 0x01, 'a'};
    struct apd_frame_reader reader = {.cap = 1024};
    const uint8_t *frame;
    size_t used, size;
    struct apd_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) {
        assert_int_equal(apd_frame_feed(&reader, bytes + i, 1, &used, &frame, &size, &err), APD_OK);
        assert_null(frame);
        assert_true(apd_frame_partial(&reader));
    }
    apd_frame_reader_fini(&reader);
}

static enum apd_code feed_once(size_t cap, const void *bytes, size_t size, size_t *out_allocated,
                               struct apd_err *err)
{
    struct apd_frame_reader reader = {.cap = cap};
    const uint8_t *frame;
    size_t used, frame_size;
    enum apd_code code = apd_frame_feed(&reader, bytes, size, &used, &frame, &frame_size, err);

    *out_allocated = reader.allocated;
    apd_frame_reader_fini(&reader);
    return code;
}

static void wrong_lengths_are_refused_before_allocation(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *says;
    } cases[] = {
        {"\x81\x08", 2, "1025 bytes"},                        /* one over the cap */
        {"\xff\xff\xff\xff\x0f", 5, "4294967295 bytes"},      /* the largest 32-bit length */
        {"\xff\xff\xff\xff\x1f", 5, "more than 32 bits"},     /* 33 bits */
        {"\xff\xff\xff\xff\xff\x01", 6, "more than 32 bits"}, /* six bytes */
        {"\x80\x80\x80\x80\x80\x00", 6, "more than 32 bits"},
        {"\x85\x00", 2, "padded"}, /* 5, written with two bytes */
        {"\x80\x80\x00", 3, "padded"},
        {"GET / HTTP/1.1\r\n", 16, NULL}, /* 'G' = 71 bytes follow: no error yet, no frame either */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apd_err err = {0};
        size_t allocated;
        enum apd_code code =
            feed_once(APD_FRAME_CAP_NEW, cases[i].bytes, cases[i].size, &allocated, &err);

        if (cases[i].says == NULL) {
            assert_int_equal(code, APD_OK);
            continue;
        }
        assert_int_equal(code, APD_PROTO);
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_int_equal(allocated, 0);
    }
}

static void length_at_the_cap_is_accepted(void **state)
{
    struct apd_err err;
    size_t allocated;

    (void)state;
    assert_int_equal(feed_once(1024, "\x80\x08", 2, &allocated, &err), APD_OK);
    assert_int_equal(allocated, 1024);
}

static void header_of_every_size_class_reads_back(void **state)
{
    static const uint32_t sizes[] = {0, 1, 127, 128, 16383, 16384, 65536, 2097152, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t header[APD_FRAME_HEADER_MAX];
        size_t n = apd_frame_header(sizes[i], header);
        uint32_t back = 0;

        for (size_t k = 0; k < n; k++)
            back |= (uint32_t)(header[k] & 0x7f) << (7 * k);
        assert_int_equal(back, sizes[i]);
        assert_false(header[n - 1] & 0x80);
    }
}

static void packed_message_reads_back(void **state)
{
    Advprop__V1__ClientRequest request = ADVPROP__V1__CLIENT_REQUEST__INIT, *back;
    Advprop__V1__Watch watch = ADVPROP__V1__WATCH__INIT;
    struct apd_frame_reader reader = {.cap = 1024};
    const uint8_t *frame;
    uint8_t *bytes;
    size_t size, used, frame_size;
    struct apd_err err;

    (void)state;
    request.id = 7;
    request.kind_case = ADVPROP__V1__CLIENT_REQUEST__KIND_WATCH;
    request.watch = &watch;
    watch.interval_ms = 250;
    assert_int_equal(apd_frame_pack(&request.base, &bytes, &size, &err), APD_OK);
    assert_int_equal(apd_frame_feed(&reader, bytes, size, &used, &frame, &frame_size, &err),
                     APD_OK);
    assert_int_equal(used, size);
    back = advprop__v1__client_request__unpack(NULL, frame_size, frame);
    assert_non_null(back);
    assert_int_equal(back->id, 7);
    assert_int_equal(back->watch->interval_ms, 250);
    advprop__v1__client_request__free_unpacked(back, NULL);
    free(bytes);
    apd_frame_reader_fini(&reader);
}

static void message_over_the_cap_is_not_packed(void **state)
{
    Advprop__V1__ConfigText text = ADVPROP__V1__CONFIG_TEXT__INIT;
    uint8_t *bytes = NULL;
    size_t size;
    struct apd_err err;

    (void)state;
    text.yaml = malloc(APD_FRAME_CAP_ACCEPTED + 1);
    assert_non_null(text.yaml);
    memset(text.yaml, 'x', APD_FRAME_CAP_ACCEPTED);
    text.yaml[APD_FRAME_CAP_ACCEPTED] = '\0';
    assert_int_equal(apd_frame_pack(&text.base, &bytes, &size, &err), APD_BUG);
    assert_null(bytes);
    free(text.yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_at_every_byte_gives_the_same_frames),
        cmocka_unit_test(single_bytes_give_the_same_frames),
        cmocka_unit_test(partial_frame_is_told),
        cmocka_unit_test(wrong_lengths_are_refused_before_allocation),
        cmocka_unit_test(length_at_the_cap_is_accepted),
        cmocka_unit_test(header_of_every_size_class_reads_back),
        cmocka_unit_test(packed_message_reads_back),
        cmocka_unit_test(message_over_the_cap_is_not_packed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
