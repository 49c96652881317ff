package peer;

import java.util.Map;
import java.util.zip.CRC32;
import org.apache.kafka.clients.producer.Partitioner;
import org.apache.kafka.common.Cluster;

/** The partition of a device as the contract says it: crc32 of its id. */
public final class Crc32Partitioner implements Partitioner {
  @Override
  public int partition(
      String topic, Object key, byte[] keyBytes, Object value, byte[] bytes, Cluster cluster) {
    var crc = new CRC32();
    crc.update(keyBytes);
    return (int) (crc.getValue() % cluster.partitionCountForTopic(topic));
  }

  @Override
  public void configure(Map<String, ?> settings) {}

  @Override
  public void close() {}
}
