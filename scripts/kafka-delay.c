/*
 * How long records take through a Kafka broker: from when they were due to be sent until a consumer
 * has them, at a fixed rate. The counterpart of `prkdb bench consume --rate`.
 *
 * usage: kafka-delay BROKERS TOPIC RATE BATCH SIZE WARMUP-SECONDS SECONDS [SETTING=VALUE...]
 *
 * RATE records a second are due in groups of BATCH; each record carries when its group was due, and a
 * group counts when its last record was read, if it was due after the warm-up. Settings of librdkafka
 * go to the producer, and with a leading "consumer." to the consumer. Prints one line.
 */
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long batch, size, failed, acknowledged;
static double rate, warmup, seconds;
static uint64_t begun;
static volatile long groups_sent = -1;
static const char *topic;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char error[512];
    if (rd_kafka_conf_set(conf, key, value, error, sizeof error) != RD_KAFKA_CONF_OK) fail(key, error);
}

static void delivered(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    if (message->err) failed++;
    else acknowledged++;
}

static int ascending(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* Reads from the end on; keeps the delay of the last record of each group that counts. */
static void *reading(void *opaque) {
    rd_kafka_t *client = opaque;
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(client);
    static rd_kafka_message_t *messages[10000];
    long room = (long)(rate / (double)batch * (seconds + 1)) + 16, count = 0, read = 0;
    uint64_t *delays = malloc(sizeof *delays * (size_t)room);
    uint64_t counts_from = begun + (uint64_t)(warmup * 1e9), last_seen = now_ns();
    while (groups_sent < 0 || read < groups_sent * batch) {
        ssize_t got = rd_kafka_consume_batch_queue(queue, 100, messages, 10000);
        uint64_t now = now_ns();
        if (got > 0) last_seen = now;
        if (now - last_seen > 30000000000u) fail("read", "what was acknowledged does not come");
        for (ssize_t i = 0; i < got; i++) {
            rd_kafka_message_t *message = messages[i];
            if (!message->err && message->len >= sizeof(uint64_t)) {
                uint64_t due;
                memcpy(&due, message->payload, sizeof due);
                if (++read % batch == 0 && due >= counts_from && count < room) delays[count++] = now - due;
            }
            rd_kafka_message_destroy(message);
        }
    }
    if (count == 0) fail("read", "no group was due after the warm-up");
    qsort(delays, (size_t)count, sizeof *delays, ascending);
    printf("result client=librdkafka-%s op=delay topic=%s rate=%.0f groups=%ld failed=%ld p50_us=%.0f p99_us=%.0f max_us=%.0f\n",
           rd_kafka_version_str(), topic, rate, count, failed, (double)delays[count / 2] / 1e3,
           (double)delays[count * 99 / 100] / 1e3, (double)delays[count - 1] / 1e3);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 8) fail("usage", "BROKERS TOPIC RATE BATCH SIZE WARMUP-SECONDS SECONDS [SETTING=VALUE...]");
    topic = argv[2], rate = atof(argv[3]), batch = atol(argv[4]), size = atol(argv[5]);
    warmup = atof(argv[6]), seconds = atof(argv[7]);
    if (rate <= 0 || batch <= 0 || size < (long)sizeof(uint64_t)) fail("usage", "a rate, a batch, 8 bytes or more");
    rd_kafka_conf_t *producing = rd_kafka_conf_new(), *consuming = rd_kafka_conf_new();
    set(producing, "bootstrap.servers", argv[1]);
    set(consuming, "bootstrap.servers", argv[1]);
    set(consuming, "group.id", "delay");
    set(consuming, "enable.auto.commit", "false");
    for (int i = 8; i < argc; i++) {
        char *key = strdup(argv[i]), *value = strchr(key, '=');
        if (!value) fail(key, "no value");
        *value++ = 0;
        if (strncmp(key, "consumer.", 9) == 0) set(consuming, key + 9, value);
        else set(producing, key, value);
    }
    rd_kafka_conf_set_dr_msg_cb(producing, delivered);
    char error[512];
    rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, consuming, error, sizeof error);
    if (!consumer) fail("consumer", error);
    rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, producing, error, sizeof error);
    if (!producer) fail("producer", error);
    /* Reads from where the log ends now. */
    int64_t low, high;
    rd_kafka_resp_err_t found = rd_kafka_query_watermark_offsets(producer, topic, 0, &low, &high, 10000);
    if (found) fail("end of the log", rd_kafka_err2str(found));
    rd_kafka_poll_set_consumer(consumer);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, 0)->offset = high;
    rd_kafka_assign(consumer, list);
    rd_kafka_topic_t *to = rd_kafka_topic_new(producer, topic, NULL);

    long pool = 4096;
    char *random = malloc((size_t)(pool + size)), *value = malloc((size_t)size);
    FILE *source = fopen("/dev/urandom", "r");
    if (!source || fread(random, 1, (size_t)(pool + size), source) == 0) fail("/dev/urandom", "not read");
    begun = now_ns();
    pthread_t reader;
    if (pthread_create(&reader, NULL, reading, consumer)) fail("thread", "not started");
    long groups = (long)(rate / (double)batch * (warmup + seconds));
    for (long group = 0; group < groups; group++) {
        uint64_t due = begun + (uint64_t)((double)group * (double)batch / rate * 1e9), now;
        while ((now = now_ns()) < due) rd_kafka_poll(producer, due - now > 2000000 ? 1 : 0);
        for (long i = 0; i < batch; i++) {
            memcpy(value, random + i * 7 % pool, (size_t)size);
            memcpy(value, &due, sizeof due);
            while (rd_kafka_produce(to, 0, RD_KAFKA_MSG_F_COPY, value, (size_t)size, NULL, 0, NULL) == -1) {
                if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                    fail("produce", rd_kafka_err2str(rd_kafka_last_error()));
                rd_kafka_poll(producer, 1);
            }
        }
        rd_kafka_poll(producer, 0);
    }
    groups_sent = groups;
    while (acknowledged + failed < groups * batch) rd_kafka_poll(producer, 1);
    if (failed) fail("produce", "records were not acknowledged");
    pthread_join(reader, NULL);
    fflush(stdout);
    _Exit(0);
}
