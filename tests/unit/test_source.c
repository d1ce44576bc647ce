/* What people name as a data set: brace ranges, WebDataset's keys and labels, folders of classes;
 * and the journal that lets an index run go on. */
#include "tests/support/scratch.h"
#include "worker/index/folder.h"
#include "worker/index/journal.h"
#include "worker/index/shard_names.h"
#include "worker/index/source.h"
#include "worker/index/webdataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* `expected`: the names, with blanks between; NULL: refused. */
static void assert_expands(const char *pattern, const char *expected)
{
    struct apd_names names = {0};
    char text[512] = "";
    struct apd_err err;
    enum apd_code rc = apd_brace_expand(pattern, &names, &err);

    if (expected == NULL) {
        assert_int_equal(rc, APD_USAGE);
    } else {
        if (rc != APD_OK)
            fail_msg("%s: %s", pattern, err.msg);
        for (size_t i = 0; i < names.count; i++) {
            strcat(text, i > 0 ? " " : "");
            strcat(text, names.name[i]);
        }
        assert_string_equal(text, expected);
    }
    apd_names_fini(&names);
}

static void braces_expand_as_in_a_shell(void **state)
{
    (void)state;
    assert_expands("plain.tar", "plain.tar");
    assert_expands("t-{08..11}.tar", "t-08.tar t-09.tar t-10.tar t-11.tar");
    assert_expands("t-{8..11}", "t-8 t-9 t-10 t-11");
    assert_expands("{3..1}", "3 2 1");
    assert_expands("{a,b}-{0..1}", "a-0 a-1 b-0 b-1");
    assert_expands("{a,b{0..1},{x,y}z}.t", "a.t b0.t b1.t xz.t yz.t");
    assert_expands("a{,b}", "a ab");
    assert_expands("{00..2}", "00 01 02");
    assert_expands("}x", "}x");
}

static void senseless_braces_are_refused(void **state)
{
    (void)state;
    assert_expands("t-{0..3.tar", NULL);
    assert_expands("t-{}.tar", NULL);
    assert_expands("t-{a}.tar", NULL);
    assert_expands("t-{0..}.tar", NULL);
    assert_expands("t-{0..-3}.tar", NULL);
    assert_expands("{0..9999999}", NULL);
    assert_expands("{0..99999999999999999999}", NULL);
    assert_expands("{0..9999}{0..9999}", NULL);
    assert_expands("{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{",
                   NULL);
}

static void assert_name(const char *name, const char *key, enum apd_wds_role role)
{
    enum apd_wds_role found = APD_WDS_OTHER;
    size_t size = 0;
    int keyed = apd_wds_name(name, &size, &found);

    assert_int_equal(keyed, key != NULL);
    if (key == NULL)
        return;
    assert_int_equal(size, strlen(key));
    assert_memory_equal(name, key, size);
    assert_int_equal(found, role);
}

static void key_ends_at_the_first_dot_of_the_last_name(void **state)
{
    (void)state;
    assert_name("a.jpg", "a", APD_WDS_IMAGE);
    assert_name("a.b/c.JPEG", "a.b/c", APD_WDS_IMAGE);
    assert_name("a.seg.png", "a", APD_WDS_OTHER);
    assert_name("a.WebP", "a", APD_WDS_IMAGE);
    assert_name("x/a.cls", "x/a", APD_WDS_CLS);
    assert_name("a.json", "a", APD_WDS_JSON);
    assert_name("./.hidden.jpg", NULL, APD_WDS_OTHER);
    assert_name("README", NULL, APD_WDS_OTHER);
    assert_name("", NULL, APD_WDS_OTHER);
}

static void labels_are_whole_numbers(void **state)
{
    static const char *const bad_text[] = {"",    " \n", "-1",      "1.0",
                                           "0x3", "1 2", "1048576", "99999999999999999999"};
    static const char *const bad_json[] = {"",
                                           "3",
                                           "[3]",
                                           "{\"cls\":",
                                           "{\"cls\": -1}",
                                           "{\"cls\": \"3\"}",
                                           "{\"cls\": 1.5}",
                                           "{\"label\": 1048576}"};
    int32_t label;

    (void)state;
    assert_null(apd_wds_label_text(" 12\r\n", 5, &label));
    assert_int_equal(label, 12);
    assert_null(apd_wds_label_text("1048575", 7, &label));
    for (size_t i = 0; i < sizeof bad_text / sizeof *bad_text; i++)
        assert_non_null(apd_wds_label_text(bad_text[i], strlen(bad_text[i]), &label));
    assert_null(apd_wds_label_json("{\"label\": 3}", 12, &label));
    assert_int_equal(label, 3);
    assert_null(apd_wds_label_json("{\"label\": 3, \"cls\": 4}", 22, &label));
    assert_int_equal(label, 4);
    assert_null(apd_wds_label_json("{\"caption\": 3}", 14, &label));
    assert_int_equal(label, -1);
    for (size_t i = 0; i < sizeof bad_json / sizeof *bad_json; i++)
        assert_non_null(apd_wds_label_json(bad_json[i], strlen(bad_json[i]), &label));
}

static void make(const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", scratch_path("set"), name);
    if (name[strlen(name) - 1] == '/')
        assert_int_equal(mkdir(path, 0755), 0);
    else
        scratch_write(path, "bytes", 5);
}

static void link_to(const char *target, const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", scratch_path("set"), name);
    assert_int_equal(symlink(target, path), 0);
}

static void folder_is_read_in_torchvisions_order(void **state)
{
    static const char *const made[] = {
        "",        "b/",        "B/",          "a b/",       ".hidden/",     "empty/",   "b/x/",
        "b/x-y/",  "b/x/z/",    "b/x/z/1.jpg", "b/x/2.png",  "b/x-y/3.webp", "b/10.JPG", "b/9.jpeg",
        "B/1.jpg", "a b/1.jpg", "a b/1.txt",   "a b/.1.jpg", "readme.txt",   "a b/none"};
    static const char *const expected[] = {"B/1.jpg",   "a b/1.jpg",    "b/10.JPG",   "b/9.jpeg",
                                           "b/x/2.png", "b/x-y/3.webp", "b/x/z/1.jpg"};
    static const uint32_t labels[] = {0, 1, 2, 2, 2, 2, 2};
    struct apd_folder folder;
    struct apd_err err;
    char path[512];

    (void)state;
    assert_int_equal(mkdir(scratch_path("set"), 0755), 0);
    for (size_t i = 1; i < sizeof made / sizeof *made; i++)
        make(made[i]);
    link_to("nowhere", "b/dangling.jpg");
    link_to("..", "b/loop");
    link_to("9.jpeg", "a b/linked.txt");
    (void)snprintf(path, sizeof path, "%s/b/fifo.jpg", scratch_path("set"));
    assert_int_equal(mkfifo(path, 0644), 0);
    (void)snprintf(path, sizeof path, "%s/b/zero.jpg", scratch_path("set"));
    scratch_write(path, "", 0);
    if (apd_folder_scan(scratch_path("set"), 2, NULL, &folder, &err) != APD_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(folder.classes.count, 4);
    assert_string_equal(folder.classes.name[3], "empty");
    assert_int_equal(folder.count, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < folder.count; i++) {
        assert_string_equal(folder.file[i].path, expected[i]);
        assert_int_equal(folder.file[i].label, labels[i]);
        assert_int_equal(folder.file[i].size, 5);
    }
    assert_int_equal(folder.hidden, 1);
    assert_int_equal(folder.other, 4);
    assert_int_equal(folder.left_out.count, 4);
    apd_folder_fini(&folder);
}

static void index_lies_beside_the_data(void **state)
{
    static const struct {
        const char *src, *index;
    } cases[] = {
        {"d/train-{0000..0123}.tar", "d/train.advprop-index"},
        {"train-*.tar", "./train.advprop-index"},
        {"d/*.tar", "d/.advprop-index"},
        {"/d/{a,b}/x.tar", "/d/.advprop-index"},
        {"d/one.tar", "d/one.advprop-index"},
    };
    struct apd_err err;
    char *path;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(apd_source_index_path(cases[i].src, &path, &err), APD_OK);
        assert_string_equal(path, cases[i].index);
        free(path);
    }
}

static void append(struct apd_journal *journal, uint64_t stamp, size_t samples)
{
    struct apd_shard_content content = {.bytes = 10 * stamp, .left_out = 1};
    struct apd_err err;

    memset(content.sha256, 'f', APD_SHA256_HEX - 1);
    for (size_t i = 0; i < samples; i++) {
        struct apd_manifest_sample sample = {.offset = stamp + i, .size = 7, .label = 3, .crc = 9};

        assert_int_equal(apd_shard_content_add(&content, &sample, &err), APD_OK);
    }
    assert_int_equal(apd_journal_append(journal, stamp, &content, &err), APD_OK);
    apd_shard_content_fini(&content);
}

static void journal_cut_anywhere_keeps_what_is_whole(void **state)
{
    const char *path = scratch_path("journal");
    struct apd_shard_content content;
    struct apd_journal *journal = NULL, *second = NULL;
    unsigned char *bytes;
    struct apd_err err;
    size_t size;

    (void)state;
    assert_int_equal(apd_journal_open(path, &journal, &err), APD_OK);
    append(journal, 5, 2);
    append(journal, 4, 3);
    assert_int_equal(apd_journal_open(path, &second, &err), APD_CONFIG); /* one at a time */
    apd_journal_close(&journal);
    bytes = scratch_read(path, &size);
    for (size_t cut = 0; cut <= size; cut++) {
        scratch_write(path, bytes, cut);
        assert_int_equal(apd_journal_open(path, &journal, &err), APD_OK);
        assert_int_equal(apd_journal_has(journal, 5), cut >= 140);
        assert_int_equal(apd_journal_has(journal, 4), cut == size);
        append(journal, 6, 1); /* what is torn is no hindrance */
        apd_journal_close(&journal);
        assert_int_equal(apd_journal_open(path, &journal, &err), APD_OK);
        assert_int_equal(apd_journal_read(journal, 6, &content, &err), APD_OK);
        assert_int_equal(content.samples, 1);
        assert_int_equal(content.bytes, 60);
        assert_int_equal(content.sample[0].offset, 6);
        apd_shard_content_fini(&content);
        assert_int_equal(apd_journal_read(journal, 1, &content, &err), APD_BUG);
        assert_int_equal(apd_journal_remove(journal, &err), APD_OK);
        apd_journal_close(&journal);
    }
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_write(path, bytes, size);
        assert_int_equal(apd_journal_open(path, &journal, &err), APD_OK);
        assert_true(!apd_journal_has(journal, 5) || !apd_journal_has(journal, 4));
        apd_journal_close(&journal);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(bytes);
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
        cmocka_unit_test(braces_expand_as_in_a_shell),
        cmocka_unit_test(senseless_braces_are_refused),
        cmocka_unit_test(key_ends_at_the_first_dot_of_the_last_name),
        cmocka_unit_test(labels_are_whole_numbers),
        cmocka_unit_test(folder_is_read_in_torchvisions_order),
        cmocka_unit_test(index_lies_beside_the_data),
        cmocka_unit_test(journal_cut_anywhere_keeps_what_is_whole),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
