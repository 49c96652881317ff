package peer;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * The sessions of a task, in a wheel with a slot for each millisecond of the heartbeat interval.
 *
 * <p>A session stays in the slot of its start, so a heartbeat changes nothing and looks nothing up.
 * The store is written at starts and ends, and read after a restart.
 */
final class Wheel implements Processor<String, byte[], String, String> {
  private static final Duration TICK = Duration.ofMillis(1); // as often as the thread comes round
  private static final String FIRED = ""; // stored under this, because no device has this id

  private final Map<String, String> platforms;
  private final int heartbeatMs;
  private final long maxMs;
  private ProcessorContext<String, String> context;
  private KeyValueStore<String, byte[]> store;
  private Map<String, Session> active; // by device
  private List<List<Session>> slots;
  private long firedMs; // all that was due by then is out

  Wheel(Map<String, String> platforms, int heartbeatMs, long maxMs) {
    this.platforms = platforms;
    this.heartbeatMs = heartbeatMs;
    this.maxMs = maxMs;
  }

  @Override
  public void init(ProcessorContext<String, String> context) {
    this.context = context;
    store = context.getStateStore(Peer.STORE);
    active = new HashMap<>();
    slots = Stream.<List<Session>>generate(ArrayList::new).limit(heartbeatMs).toList();
    firedMs = context.currentSystemTimeMs();
    try (var stored = store.all()) {
      stored.forEachRemaining(
          row -> {
            if (row.key.equals(FIRED)) {
              firedMs = ByteBuffer.wrap(row.value).getLong();
            } else {
              add(Session.stored(row.key, row.value));
            }
          });
    }
    context.schedule(TICK, PunctuationType.WALL_CLOCK_TIME, this::fire);
  }

  @Override
  public void process(Record<String, byte[]> record) {
    Event.read(record.value()).ifPresent(event -> apply(event, record.timestamp()));
  }

  /** A start replaces another session and is ignored if it is repeated; an end is of its session. */
  private void apply(Event event, long timeMs) {
    var names = event.names();
    var before = active.get(event.device());
    var isSame = before != null && before.names.equals(names);
    if (isSame == event.isStart()) {
      return;
    }
    if (before != null) {
      finish(before, timeMs, event.isStart() ? "replaced" : "ended");
    }
    if (event.isStart()) {
      var platform = platforms.get(context.recordMetadata().orElseThrow().topic());
      begin(new Session(event.device(), names, platform, timeMs));
    }
  }

  private void begin(Session session) {
    add(session);
    store.put(session.device, session.toBytes());
    send(session, session.active());
    advance(session, session.startedMs, firedMs); // what it missed, if it was read late
  }

  private void add(Session session) {
    active.put(session.device, session);
    slots.get((int) (session.startedMs % heartbeatMs)).add(session);
  }

  /** An end that is read after a later heartbeat was sent has the time of that heartbeat. */
  private void finish(Session session, long timeMs, String reason) {
    var sentMs = Math.max(firedMs, session.startedMs);
    if (advance(session, sentMs, timeMs)) {
      var lastMs = sentMs - (sentMs - session.startedMs) % heartbeatMs;
      end(session, Math.max(timeMs, lastMs), reason);
    }
  }

  private void fire(long nowMs) {
    for (; firedMs < nowMs; firedMs++) {
      var dueMs = firedMs + 1;
      slots
          .get((int) (dueMs % heartbeatMs))
          .removeIf(session -> session.isOver || !advance(session, dueMs - 1, dueMs));
    }
    store.put(FIRED, ByteBuffer.allocate(Long.BYTES).putLong(firedMs).array());
  }

  /** Sends what is due after one moment and by another; says whether the session goes on. */
  private boolean advance(Session session, long afterMs, long uptoMs) {
    var timeoutMs = session.startedMs + maxMs;
    var sequence = (afterMs - session.startedMs) / heartbeatMs + 1;
    var dueMs = session.startedMs + sequence * heartbeatMs;
    for (; dueMs <= uptoMs && dueMs < timeoutMs; dueMs += heartbeatMs) {
      send(session, session.heartbeat(dueMs, sequence++));
    }
    if (uptoMs < timeoutMs) {
      return true;
    }
    end(session, timeoutMs, "timed_out");
    return false;
  }

  private void end(Session session, long timeMs, String reason) {
    session.isOver = true;
    active.remove(session.device);
    store.delete(session.device);
    send(session, session.end(timeMs, reason));
  }

  private void send(Session session, String value) {
    context.forward(new Record<>(session.device, value, context.currentSystemTimeMs()));
  }
}
