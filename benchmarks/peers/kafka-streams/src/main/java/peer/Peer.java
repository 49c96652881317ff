package peer;

import java.util.Arrays;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

/**
 * Device sessions on Kafka Streams.
 *
 * <p>It reads Heartwheel's own variables, where they mean something to it. An argument is a setting
 * of Kafka Streams as NAME=VALUE and wins over those here; {@code
 * processing.guarantee=exactly_once_v2} makes its output exactly once.
 */
public final class Peer {
  static final String STORE = "sessions";

  private Peer() {}

  public static void main(String[] arguments) {
    var env = System.getenv();
    var streams = new KafkaStreams(topology(env), settings(env, pairs(arguments)));
    streams.setUncaughtExceptionHandler(error -> StreamThreadExceptionResponse.REPLACE_THREAD);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  private static Topology topology(Map<String, String> env) {
    var platforms = pairs(env.get("HEARTWHEEL_INPUT_TOPICS").split(","));
    var heartbeatMs = Integer.parseInt(env.getOrDefault("HEARTWHEEL_HEARTBEAT_MS", "30000"));
    var maxMs = Long.parseLong(env.getOrDefault("HEARTWHEEL_MAX_SESSION_MS", "28800000"));
    var store = Stores.inMemoryKeyValueStore(STORE); // its changelog topic is the durable copy
    var text = Serdes.String();
    var bytes = Serdes.ByteArray();
    return new Topology()
        .addSource(
            "input",
            text.deserializer(),
            bytes.deserializer(),
            platforms.keySet().toArray(String[]::new))
        .addProcessor("wheel", () -> new Wheel(platforms, heartbeatMs, maxMs), "input")
        .addStateStore(Stores.keyValueStoreBuilder(store, text, bytes), "wheel")
        .addSink(
            "output",
            env.get("HEARTWHEEL_OUTPUT_TOPIC"),
            text.serializer(),
            text.serializer(),
            "wheel");
  }

  private static Properties settings(Map<String, String> env, Map<String, String> given) {
    var settings = new Properties();
    settings.put(
        StreamsConfig.APPLICATION_ID_CONFIG, "peer-" + env.get("HEARTWHEEL_OUTPUT_TOPIC"));
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env.get("HEARTWHEEL_BOOTSTRAP_SERVERS"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, env.get("HEARTWHEEL_RECOVERY_DIR"));
    // One for each partition of an input topic: more have no task.
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    // How long a thread without input waits; due heartbeats wait as long.
    settings.put(StreamsConfig.POLL_MS_CONFIG, 5);
    // Topics share no devices, so none waits for the records of another.
    settings.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, -1);
    // A new application reads what is there already.
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    // A process that is started again goes on at once: nobody waits until it is given up.
    settings.put(StreamsConfig.consumerPrefix("group.instance.id"), "peer");
    // A few milliseconds make batches that are ten times larger.
    settings.put(StreamsConfig.producerPrefix("linger.ms"), 5);
    // Room for all that comes in that time, so that no batch is sent before.
    settings.put(StreamsConfig.producerPrefix("batch.size"), 262_144);
    // As Heartwheel does.
    settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    settings.put(StreamsConfig.producerPrefix("partitioner.class"), Crc32Partitioner.class);
    settings.putAll(given);
    if (!settings.containsKey(StreamsConfig.PROCESSING_GUARANTEE_CONFIG)) {
      // A commit waits for all that was sent; what came since the last one is done again after a
      // crash. (Exactly once has its own default, because its output is seen at a commit only.)
      settings.putIfAbsent(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 10_000);
    }
    return settings;
  }

  private static Map<String, String> pairs(String[] texts) {
    return Arrays.stream(texts)
        .map(text -> text.split("=", 2))
        .collect(Collectors.toMap(pair -> pair[0], pair -> pair[1]));
  }
}
