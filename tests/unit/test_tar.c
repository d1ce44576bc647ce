/* Tar files: names and sizes in all their spellings, and damage of every kind. */
#include "worker/data/tar.h"

#include "tests/support/scratch.h"
#include "worker/data/regular.h"
#include "worker/data/tar_fields.h"
#include "worker/index/tar_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = APD_TAR_BLOCK, ARCHIVE_MAX = 64 * BLOCK };

/* An archive in memory that grows member by member. */
static uint8_t archive[ARCHIVE_MAX];
static size_t archive_size;

static void seal(uint8_t *header)
{
    unsigned sum = 0;

    memset(header + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++)
        sum += header[i];
    (void)snprintf((char *)header + 148, 7, "%06o", sum);
}

/* Returns the header, to be changed and sealed anew. */
static uint8_t *add(char type, const char *name, const void *data, size_t size)
{
    uint8_t *header = archive + archive_size;

    memset(header, 0, BLOCK);
    (void)snprintf((char *)header, 100, "%s", name);
    (void)snprintf((char *)header + 124, 12, "%011o", (unsigned)size & 0xffffffu);
    header[156] = (uint8_t)type;
    memcpy(header + 257, "ustar\00000", 8);
    seal(header);
    archive_size += BLOCK;
    if (size > 0)
        memcpy(archive + archive_size, data, size);
    archive_size += (size + BLOCK - 1) / BLOCK * BLOCK;
    assert_true(archive_size + 2 * BLOCK <= ARCHIVE_MAX);
    return header;
}

static void start_archive(void)
{
    memset(archive, 0, sizeof archive);
    archive_size = 0;
}

static struct apd_tar *open_bytes(size_t size)
{
    struct apd_tar *tar = NULL;
    struct apd_err err;

    scratch_write(scratch_path("a.tar"), archive, size);
    if (apd_tar_open(scratch_path("a.tar"), NULL, &tar, &err) != APD_OK)
        fail_msg("%s", err.msg);
    return tar;
}

static const struct apd_tar_member *next(struct apd_tar *tar)
{
    const struct apd_tar_member *member;
    struct apd_err err;

    if (apd_tar_next(tar, &member, &err) != APD_OK)
        fail_msg("%s", err.msg);
    return member;
}

static void assert_content(struct apd_tar *tar, const char *expected)
{
    size_t used = 0, size;
    const uint8_t *piece;
    struct apd_err err;

    while (apd_tar_piece(tar, &piece, &size, &err) == APD_OK && size > 0) {
        assert_true(used + size <= strlen(expected));
        assert_memory_equal(piece, expected + used, size);
        used += size;
    }
    assert_int_equal(used, strlen(expected));
}

/* Reading to the end fails with a message that has `text` in it. */
static void assert_refused(size_t size, const char *text)
{
    struct apd_tar *tar = open_bytes(size);
    const struct apd_tar_member *member = NULL;
    struct apd_err err = {0};
    enum apd_code rc;

    do
        rc = apd_tar_next(tar, &member, &err);
    while (rc == APD_OK && member != NULL);
    if (rc != APD_DATA || strstr(err.msg, text) == NULL || strstr(err.msg, "a.tar") == NULL)
        fail_msg("%s: \"%s\", expected data error with \"%s\"", apd_code_name(rc), err.msg, text);
    apd_tar_close(&tar);
}

static void members_come_with_name_place_and_bytes(void **state)
{
    const struct apd_tar_member *member;
    struct apd_tar *tar;
    char direct[6] = "";
    struct apd_err err;
    int fd;

    (void)state;
    start_archive();
    add('0', "a.jpg", "first", 5);
    add('5', "folder/", NULL, 0);
    add('2', "link", NULL, 0);
    add('\0', "old/", NULL, 0);
    add('0', "empty", NULL, 0);
    add('0', "b.jpg", "second", 6);
    tar = open_bytes(archive_size + 2 * BLOCK);
    member = next(tar);
    assert_string_equal(member->name, "a.jpg");
    assert_null(member->skip);
    assert_int_equal(member->offset, BLOCK);
    assert_int_equal(member->size, 5);
    assert_content(tar, "first");
    assert_string_equal(next(tar)->skip, "directory");
    assert_string_equal(next(tar)->skip, "symbolic link");
    assert_string_equal(next(tar)->skip, "directory");
    member = next(tar);
    assert_null(member->skip);
    assert_int_equal(member->size, 0);
    assert_content(tar, "");
    member = next(tar); /* its bytes are passed over */
    assert_string_equal(member->name, "b.jpg");
    assert_int_equal(apd_regular_open(scratch_path("a.tar"), &fd, NULL, &err), APD_OK);
    assert_int_equal(apd_regular_read(fd, "a.tar", member->offset, direct, 6, &err), APD_OK);
    assert_memory_equal(direct, "second", 6);
    assert_int_equal(apd_regular_read(fd, "a.tar", member->offset, archive, 9999, &err), APD_DATA);
    close(fd);
    assert_null(next(tar));
    apd_tar_close(&tar);
    assert_null(tar);
}

static void names_are_read_in_every_spelling(void **state)
{
    static const char gnu[] = "long/gnu/name.jpg", pax[] = "19 path=pax/name.x\n";
    static const char with_size[] = "10 size=4\n14 path=sized\n";
    uint8_t *header;
    struct apd_tar *tar;

    (void)state;
    start_archive();
    header = add('0', "tail.jpg", "x", 1);
    memcpy(header + 345, "some/prefix", 11);
    seal(header);
    header = add('0', "no-prefix", "x", 1); /* GNU's magic: other things lie there */
    memcpy(header + 257, "ustar  ", 8);
    memcpy(header + 345, "12345", 5);
    seal(header);
    add('L', "././@LongLink", gnu, sizeof gnu);
    add('K', "././@LongLink", "target", 7);
    add('0', "cut", "x", 1);
    add('x', "PaxHeaders/a", pax, sizeof pax - 1);
    add('0', "cut", "x", 1);
    add('x', "PaxHeaders/b", with_size, sizeof with_size - 1);
    header = add('0', "cut", "four", 4);
    memset(header + 124, '0', 11); /* the size is in the extended header alone */
    seal(header);
    add('0', "plain", "x", 1); /* what was said above is over */
    tar = open_bytes(archive_size);
    assert_string_equal(next(tar)->name, "some/prefix/tail.jpg");
    assert_string_equal(next(tar)->name, "no-prefix");
    assert_string_equal(next(tar)->name, gnu);
    assert_string_equal(next(tar)->name, "pax/name.x");
    assert_string_equal(next(tar)->name, "sized");
    assert_content(tar, "four");
    assert_string_equal(next(tar)->name, "plain");
    assert_null(next(tar)); /* the end of the file is an end, too */
    apd_tar_close(&tar);
}

static void global_pax_header_holds_until_it_is_taken_back(void **state)
{
    struct apd_tar *tar;

    (void)state;
    start_archive();
    add('g', "g", "12 path=all\n20 comment=whatever\n", 32);
    add('0', "one", "x", 1);
    add('x', "x", "12 path=own\n", 12);
    add('0', "two", "x", 1);
    add('g', "g", "8 path=\n", 8);
    add('0', "three", "x", 1);
    tar = open_bytes(archive_size);
    assert_string_equal(next(tar)->name, "all");
    assert_string_equal(next(tar)->name, "own");
    assert_string_equal(next(tar)->name, "three");
    assert_null(next(tar));
    apd_tar_close(&tar);
}

static void sizes_in_base_256_are_read(void **state)
{
    static const uint8_t five[12] = {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5};
    struct apd_tar *tar;
    uint8_t *header;

    (void)state;
    start_archive();
    header = add('0', "a", "12345", 5);
    memcpy(header + 124, five, sizeof five);
    seal(header);
    tar = open_bytes(archive_size);
    assert_int_equal(next(tar)->size, 5);
    assert_content(tar, "12345");
    apd_tar_close(&tar);
    header[124] = 0xff; /* negative */
    seal(header);
    assert_refused(archive_size, "no number in the size field at offset 124");
    header[124] = 0x80;
    header[125] = 1;
    seal(header);
    assert_refused(archive_size, "no number in the size field");
}

static void archive_cut_anywhere_is_refused_or_ends_at_a_member(void **state)
{
    size_t sound = 0;

    (void)state;
    start_archive();
    add('0', "a", "12345", 5);
    add('x', "x", "12 path=own\n", 12);
    add('0', "b", "12345", 5);
    for (size_t size = 0; size < archive_size; size++) {
        if (size == 0 || size == 2 * BLOCK) {
            struct apd_tar *tar = open_bytes(size);

            while (next(tar) != NULL)
                sound++;
            apd_tar_close(&tar);
        } else {
            assert_refused(size, "offset");
        }
    }
    assert_int_equal(sound, 1);
}

static void any_flipped_bit_of_a_header_is_refused(void **state)
{
    (void)state;
    start_archive();
    add('0', "a", "12345", 5);
    for (size_t bit = 0; bit < 8 * BLOCK; bit++) {
        if (bit / 8 >= 148 && bit / 8 < 156)
            continue; /* the checksum itself: leading zeros may become blanks */
        archive[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_refused(archive_size, "wrong checksum of the header at offset 0");
        archive[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void what_follows_the_end_mark_is_named(void **state)
{
    (void)state;
    start_archive();
    add('0', "a", "12345", 5);
    archive[archive_size + 2 * BLOCK + 7] = 1;
    assert_refused(archive_size + 3 * BLOCK, "trailing bytes at offset 2055");
}

static void sizes_beyond_the_end_and_huge_metadata_are_refused(void **state)
{
    uint8_t *header;

    (void)state;
    start_archive();
    header = add('0', "a", "12345", 5);
    memcpy(header + 124, "00000002001", 11);
    seal(header);
    assert_refused(archive_size, "declares 1025 bytes, found 512");
    start_archive();
    header = add('x', "a", "12345", 5);
    memcpy(header + 124, "77777777777", 11);
    seal(header);
    assert_refused(archive_size, "up to the end of the file");
}

static void broken_extended_headers_are_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"path=x\n", "a record without a length"},
        {"99 path=x\n", "a record of the wrong length"},
        {"3 path=x\n", "a record of the wrong length"},
        {"2 \n", "a record of the wrong length"},
        {"8 pathx\n", "a record without ="},
        {"99999999999999999999 path=x\n", "a record without a length"},
        {"10 size=x\n", "a size that is no number"},
        {"12 path=ok\n12 path=bad", "a record of the wrong length"},
        {"22 GNU.sparse.major=1\n", "a sparse member"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start_archive();
        add('x', "x", cases[i].text, strlen(cases[i].text));
        add('0', "a", "12345", 5);
        assert_refused(archive_size, cases[i].message);
    }
    start_archive();
    add('S', "a", "12345", 5);
    assert_refused(archive_size, "a sparse member at offset 0");
    start_archive();
    add('x', "x", "12 path=own\n", 12);
    assert_refused(archive_size, "behind an extended header");
}

static void what_is_no_regular_file_is_not_waited_for(void **state)
{
    struct apd_tar *tar = NULL;
    struct apd_err err;

    (void)state;
    assert_int_equal(mkfifo(scratch_path("fifo"), 0644), 0);
    assert_int_equal(apd_tar_open(scratch_path("fifo"), NULL, &tar, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "no regular file"));
    assert_int_equal(apd_tar_open(scratch_path("none"), NULL, &tar, &err), APD_IO);
    assert_null(tar);
}

static void what_we_write_is_read_and_hashed_whole(void **state)
{
    struct apd_out_file out = {0};
    struct apd_sha256 *hash = NULL;
    struct apd_tar *tar = NULL;
    char streamed[APD_SHA256_HEX], whole[APD_SHA256_HEX];
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_out_open(&out, scratch_path("w.tar"), &err), APD_OK);
    assert_int_equal(apd_tar_put(&out, "1.png", "image", 5, &err), APD_OK);
    assert_int_equal(apd_tar_put(&out, "1.cls", "7", 1, &err), APD_OK);
    assert_int_equal(apd_tar_put_end(&out, &err), APD_OK);
    assert_int_equal(access(scratch_path("w.tar"), F_OK), -1); /* not before it is whole */
    assert_int_equal(apd_out_commit(&out, &err), APD_OK);
    apd_out_fini(&out);
    assert_int_equal(apd_sha256_create(&hash, &err), APD_OK);
    assert_int_equal(apd_tar_open(scratch_path("w.tar"), hash, &tar, &err), APD_OK);
    assert_string_equal(next(tar)->name, "1.png");
    assert_content(tar, "image");
    assert_string_equal(next(tar)->name, "1.cls");
    assert_null(next(tar));
    assert_int_equal(apd_sha256_hex(hash, streamed, &err), APD_OK);
    assert_int_equal(apd_sha256_of_file(scratch_path("w.tar"), whole, &err), APD_OK);
    assert_string_equal(streamed, whole);
    apd_sha256_destroy(&hash);
    apd_tar_close(&tar);
}

static int set_up(void **state)
{
    (void)state;
    scratch_create();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_come_with_name_place_and_bytes),
        cmocka_unit_test(names_are_read_in_every_spelling),
        cmocka_unit_test(global_pax_header_holds_until_it_is_taken_back),
        cmocka_unit_test(sizes_in_base_256_are_read),
        cmocka_unit_test(archive_cut_anywhere_is_refused_or_ends_at_a_member),
        cmocka_unit_test(any_flipped_bit_of_a_header_is_refused),
        cmocka_unit_test(what_follows_the_end_mark_is_named),
        cmocka_unit_test(sizes_beyond_the_end_and_huge_metadata_are_refused),
        cmocka_unit_test(broken_extended_headers_are_refused),
        cmocka_unit_test(what_is_no_regular_file_is_not_waited_for),
        cmocka_unit_test(what_we_write_is_read_and_hashed_whole),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
