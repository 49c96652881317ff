package peer;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** A session that is active, or was when its slot of the wheel came round last. */
final class Session {
  final String device;
  final String names; // as in Event; two sessions of a device differ in it
  final String platform;
  final long startedMs;
  boolean isOver; // it leaves its slot when that comes round

  Session(String device, String names, String platform, long startedMs) {
    this.device = device;
    this.names = names;
    this.platform = platform;
    this.startedMs = startedMs;
  }

  /** Returns a session as it was stored. */
  static Session stored(String device, byte[] value) {
    var buffer = ByteBuffer.wrap(value);
    var startedMs = buffer.getLong();
    var platform = new byte[buffer.get()];
    buffer.get(platform);
    var names = new byte[buffer.remaining()];
    buffer.get(names);
    return new Session(device, text(names), text(platform).intern(), startedMs);
  }

  byte[] toBytes() {
    var platform = this.platform.getBytes(StandardCharsets.UTF_8);
    var names = this.names.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(Long.BYTES + 1 + platform.length + names.length)
        .putLong(startedMs)
        .put((byte) platform.length)
        .put(platform)
        .put(names)
        .array();
  }

  String active() {
    return record("SessionActive", startedMs) + '}';
  }

  String heartbeat(long timeMs, long sequence) {
    return record("Heartbeat", timeMs) + ",\"sequence\":" + sequence + '}';
  }

  String end(long timeMs, String reason) {
    return record("SessionEnd", timeMs)
        + ",\"reason\":\"" + reason
        + "\",\"duration_ms\":" + (timeMs - startedMs)
        + '}';
  }

  private String record(String type, long timeMs) {
    return "{\"type\":\"" + type
        + "\"," + names
        + ",\"platform\":\"" + platform
        + "\",\"started_ms\":" + startedMs
        + ",\"time_ms\":" + timeMs;
  }

  private static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }
}
