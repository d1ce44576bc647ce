/* Loading of run.yaml: libyaml's events -> dotted keys -> the option table; then key=value
 * overrides.
 *
 * The file is a mapping of scalars, lists and, one level deep, mappings. Everything else that YAML
 * has (several documents, anchors, aliases, tags) is refused, and so are duplicate keys. Files are
 * capped before they are parsed. Values are config_values.c's business. */
#include "proto/config.h"
#include "base/fs.h"
#include "proto/config_options.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define FILE_CAP 65536
#define KEY_MAX  64

struct loader {
    const char *path;
    struct apd_config *config;
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; deleted by the next */
    int has_event;
    unsigned char seen[128];       /* options */
    unsigned char seen_group[128]; /* by the group's first option */
};

static enum apd_code at_mark(const struct loader *loader, yaml_mark_t mark, struct apd_err *err)
{
    return apd_prefix(err, "%s:%zu:%zu", loader->path, mark.line + 1, mark.column + 1);
}

static enum apd_code next_event(struct loader *loader, struct apd_err *err)
{
    yaml_parser_t *parser = &loader->parser;

    if (loader->has_event)
        yaml_event_delete(&loader->event);
    loader->has_event = yaml_parser_parse(parser, &loader->event);
    if (loader->has_event)
        return APD_OK;
    if (parser->error == YAML_MEMORY_ERROR)
        return apd_fail(err, APD_NOMEM, "memory for parsing %s", loader->path);
    apd_fail(err, APD_CONFIG, "no valid YAML: %s", parser->problem != NULL ? parser->problem : "?");
    if (parser->error == YAML_READER_ERROR)
        return apd_prefix(err, "%s: byte %zu", loader->path, parser->problem_offset);
    return at_mark(loader, parser->problem_mark, err);
}

static const char *event_name(yaml_event_type_t type)
{
    switch (type) {
    case YAML_MAPPING_START_EVENT:
        return "a group of options";
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    case YAML_ALIAS_EVENT:
        return "an alias";
    case YAML_SCALAR_EVENT:
        return "a single value";
    default:
        return "nothing";
    }
}

/* Refuses what the format does not have: anchors, aliases, tags. */
static enum apd_code plain_node(struct loader *loader, struct apd_err *err)
{
    const yaml_event_t *event = &loader->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor == NULL && tag == NULL && event->type != YAML_ALIAS_EVENT)
        return APD_OK;
    apd_fail(err, APD_CONFIG, "anchors, aliases and tags are no part of this format");
    return at_mark(loader, event->start_mark, err);
}

static enum apd_code unknown_key(const char *key, struct apd_err *err)
{
    const char *nearest = apd_option_nearest(key);

    if (nearest == NULL)
        return apd_fail(err, APD_CONFIG,
                        "unknown option %s (advprop config explain lists all of them)", key);
    return apd_fail(err, APD_CONFIG, "unknown option %s; the nearest one is %s", key, nearest);
}

/* First option of "group", or NULL. */
static const struct apd_option *find_group(const char *group)
{
    size_t n = strlen(group);

    for (size_t i = 0; i < apd_option_count; i++)
        if (strncmp(apd_options[i].key, group, n) == 0 && apd_options[i].key[n] == '.')
            return &apd_options[i];
    return NULL;
}

static enum apd_code load_list(struct loader *loader, const struct apd_option *option,
                               struct apd_err *err)
{
    apd_option_clear(option, loader->config);
    for (;;) {
        const yaml_event_t *event = &loader->event;
        enum apd_code rc;

        APD_TRY(next_event(loader, err));
        APD_TRY(plain_node(loader, err));
        if (event->type == YAML_SEQUENCE_END_EVENT)
            return APD_OK;
        if (event->type != YAML_SCALAR_EVENT)
            rc = apd_fail(err, APD_CONFIG, "expected a number, found %s", event_name(event->type));
        else
            rc = apd_option_append(option, (const char *)event->data.scalar.value,
                                   event->data.scalar.length, loader->config, err);
        if (rc != APD_OK) {
            apd_prefix(err, "%s", option->key);
            return at_mark(loader, event->start_mark, err);
        }
    }
}

/* The current event is the option's value. */
static enum apd_code load_value(struct loader *loader, const struct apd_option *option,
                                struct apd_err *err)
{
    const yaml_event_t *event = &loader->event;
    enum apd_code rc;

    if (event->type == YAML_SEQUENCE_START_EVENT && option->type == APD_OPTION_REALS)
        return load_list(loader, option, err);
    if (event->type == YAML_SCALAR_EVENT) {
        rc = apd_option_set(option, (const char *)event->data.scalar.value,
                            event->data.scalar.length, loader->config, err);
    } else {
        char expected[320];

        apd_option_expectation(option, expected, sizeof expected);
        rc = apd_fail(err, APD_CONFIG, "expected %s, found %s", expected, event_name(event->type));
    }
    if (rc == APD_OK)
        return APD_OK;
    apd_prefix(err, "%s", option->key);
    return at_mark(loader, event->start_mark, err);
}

/* Whether this place in the table is met for the first time. */
static enum apd_code first_time(unsigned char *seen, const struct apd_option *option,
                                const char *key, struct apd_err *err)
{
    size_t i = (size_t)(option - apd_options);

    if (seen[i])
        return apd_fail(err, APD_CONFIG, "%s is given twice", key);
    seen[i] = 1;
    return APD_OK;
}

/* The current event is a key; `group` is "" at the top. On return the key's value is the current
 * event and *out_option is its option, or NULL if `key` (dotted, KEY_MAX bytes) names a group. */
static enum apd_code load_key(struct loader *loader, const char *group, char *key,
                              const struct apd_option **out_option, struct apd_err *err)
{
    yaml_mark_t mark = loader->event.start_mark;
    const struct apd_option *option, *first = NULL;
    enum apd_code rc;
    int n = -1;

    if (loader->event.type == YAML_SCALAR_EVENT)
        n = snprintf(key, KEY_MAX, "%s%s%s", group, *group != '\0' ? "." : "",
                     (const char *)loader->event.data.scalar.value);
    if (n < 0 || n >= KEY_MAX) {
        apd_fail(err, APD_CONFIG, "expected the name of an option, found %s",
                 n < 0 ? event_name(loader->event.type) : "a text longer than any");
        return at_mark(loader, mark, err);
    }
    APD_TRY(next_event(loader, err));
    APD_TRY(plain_node(loader, err));
    option = apd_option_find(key);
    if (option == NULL && *group == '\0')
        first = find_group(key);
    if (option != NULL)
        rc = first_time(loader->seen, option, key, err);
    else if (first == NULL)
        rc = unknown_key(key, err);
    else if (loader->event.type != YAML_MAPPING_START_EVENT)
        rc = apd_fail(err, APD_CONFIG, "%s is a group (%s, ...), found %s", key, first->key,
                      event_name(loader->event.type));
    else
        rc = first_time(loader->seen_group, first, key, err);
    if (rc != APD_OK)
        return at_mark(loader, mark, err);
    *out_option = option;
    return APD_OK;
}

static enum apd_code load_group(struct loader *loader, const char *group, struct apd_err *err)
{
    for (;;) {
        const struct apd_option *option = NULL;
        char key[KEY_MAX];

        APD_TRY(next_event(loader, err));
        APD_TRY(plain_node(loader, err));
        if (loader->event.type == YAML_MAPPING_END_EVENT)
            return APD_OK;
        APD_TRY(load_key(loader, group, key, &option, err));
        if (option != NULL)
            APD_TRY(load_value(loader, option, err));
        else
            APD_TRY(load_group(loader, key, err)); /* once: only the top level has groups */
    }
}

static enum apd_code load_document(struct loader *loader, struct apd_err *err)
{
    APD_TRY(next_event(loader, err)); /* stream start */
    APD_TRY(next_event(loader, err));
    if (loader->event.type == YAML_STREAM_END_EVENT)
        return APD_OK;
    APD_TRY(next_event(loader, err));
    APD_TRY(plain_node(loader, err));
    if (loader->event.type != YAML_MAPPING_START_EVENT) {
        apd_fail(err, APD_CONFIG, "expected lines of \"option: value\", found %s",
                 event_name(loader->event.type));
        return at_mark(loader, loader->event.start_mark, err);
    }
    APD_TRY(load_group(loader, "", err));
    APD_TRY(next_event(loader, err)); /* document end */
    APD_TRY(next_event(loader, err));
    if (loader->event.type == YAML_STREAM_END_EVENT)
        return APD_OK;
    apd_fail(err, APD_CONFIG, "expected one document, found a second one");
    return at_mark(loader, loader->event.start_mark, err);
}

static enum apd_code load_file(const char *path, struct apd_config *config, struct apd_err *err)
{
    struct loader loader = {.path = path, .config = config};
    enum apd_code rc = APD_OK;
    char *text = NULL;
    size_t size = 0;

    if (apd_read_file(path, FILE_CAP, &text, &size, err) != APD_OK) {
        /* A run that cannot read its configuration must not start, whatever the reason. */
        if (err->code != APD_NOMEM)
            err->code = APD_CONFIG;
        return err->code;
    }
    if (!yaml_parser_initialize(&loader.parser)) {
        rc = apd_fail(err, APD_NOMEM, "memory for parsing %s", path);
        goto done;
    }
    yaml_parser_set_input_string(&loader.parser, (const unsigned char *)text, size);
    rc = load_document(&loader, err);
done:
    if (loader.has_event)
        yaml_event_delete(&loader.event);
    yaml_parser_delete(&loader.parser);
    free(text);
    return rc;
}

static enum apd_code load_override(const char *text, struct apd_config *config, struct apd_err *err)
{
    const char *equals = strchr(text, '=');
    const struct apd_option *option;
    char key[KEY_MAX];
    size_t n;

    if (equals == NULL)
        return apd_fail(err, APD_CONFIG, "\"%.80s\": expected key=value", text);
    n = (size_t)(equals - text);
    if (n >= sizeof key)
        return apd_fail(err, APD_CONFIG, "\"%.80s...\": no option has so long a name", text);
    memcpy(key, text, n);
    key[n] = '\0';
    option = apd_option_find(key);
    if (option == NULL) {
        unknown_key(key, err);
        return apd_prefix(err, "\"%.80s\"", text);
    }
    if (apd_option_set(option, equals + 1, strlen(equals + 1), config, err) != APD_OK)
        return apd_prefix(err, "\"%.80s\"", text);
    return APD_OK;
}

static enum apd_code set_defaults(struct apd_config *config, struct apd_err *err)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < apd_option_count; i++) {
        const struct apd_option *option = &apd_options[i];
        const char *text = option->type == APD_OPTION_TEXT ? "" : option->initial;

        if (apd_option_set(option, text, strlen(text), config, err) != APD_OK) {
            err->code = APD_BUG;
            return apd_prefix(err, "default of %s", option->key);
        }
    }
    return APD_OK;
}

static void resolve(int64_t *field, int64_t value)
{
    if (*field == APD_AUTO)
        *field = value;
}

/* What auto means in the mode: AdvProp as Xie et al. have it, Fast AdvProp as Mei et al. do. */
static void resolve_auto(struct apd_config *config)
{
    int paired = config->train.mode == APD_MODE_ADVPROP;

    resolve(&config->attack.steps, paired ? 5 : 1);
    resolve(&config->attack.goal, paired ? APD_GOAL_TARGETED : APD_GOAL_UNTARGETED);
    resolve(&config->attack.bn_mode, paired ? APD_BN_MODE_EVAL : APD_BN_MODE_TRAIN);
    resolve(&config->attack.reuse_gradients, !paired);
    resolve(&config->attack.shuffle, !paired);
    if (config->train.weight_adv < 0)
        config->train.weight_adv = paired ? 1 : 0.5;
}

enum apd_code apd_config_load(const char *path, const char *const *overrides, size_t override_count,
                              struct apd_config *out, struct apd_err *err)
{
    struct apd_config config;

    APD_TRY(set_defaults(&config, err));
    if (path != NULL)
        APD_TRY(load_file(path, &config, err));
    for (size_t i = 0; i < override_count; i++)
        APD_TRY(load_override(overrides[i], &config, err));
    resolve_auto(&config);
    *out = config;
    return APD_OK;
}
