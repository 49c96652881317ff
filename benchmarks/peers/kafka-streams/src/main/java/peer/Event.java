package peer;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.io.JsonStringEncoder;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.util.Optional;

/** What a device says: a session has begun, or is over. */
record Event(
    String type,
    @JsonProperty("device_id") String device,
    @JsonProperty("session_id") String session) {
  private static final int MAX_ID = 128;
  private static final ObjectReader READER =
      new ObjectMapper()
          .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
          .readerFor(Event.class);

  /** Returns the event in a record's value, or nothing where it is none. */
  static Optional<Event> read(byte[] value) {
    try {
      return Optional.ofNullable(value == null ? null : READER.<Event>readValue(value))
          .filter(event -> "GameStart".equals(event.type) || "GameEnd".equals(event.type))
          .filter(event -> isId(event.device) && isId(event.session));
    } catch (IOException notJson) {
      return Optional.empty();
    }
  }

  boolean isStart() {
    return type.equals("GameStart");
  }

  /** Returns the part of each output record that names the session. */
  String names() {
    return "\"device_id\":" + quoted(device) + ",\"session_id\":" + quoted(session);
  }

  private static boolean isId(String text) {
    return text != null && !text.isEmpty() && text.codePointCount(0, text.length()) <= MAX_ID;
  }

  private static String quoted(String text) {
    return '"' + String.valueOf(JsonStringEncoder.getInstance().quoteAsString(text)) + '"';
  }
}
