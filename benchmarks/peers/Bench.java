// The sender on Pushy: at most 1,000 sendNotification at once, after a warm-up of eight seconds, in which
// the JVM compiles what is called often. On one core that takes longer than the first 100,000 pushes.
import com.eatthepath.pushy.apns.*;
import com.eatthepath.pushy.apns.auth.ApnsSigningKey;
import com.eatthepath.pushy.apns.util.SimpleApnsPushNotification;
import java.io.File;
import java.nio.file.*;
import java.time.Instant;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;

public class Bench {
    static final AtomicLong failed = new AtomicLong();

    static double run(ApnsClient client, String topic, String body, int begin, int count) throws Exception {
        Semaphore room = new Semaphore(1000);
        CountDownLatch done = new CountDownLatch(count);
        Instant until = Instant.now().plusSeconds(3600);
        failed.set(0);
        long start = System.nanoTime();
        for (int n = 0; n < count; n++) {
            room.acquire();
            client.sendNotification(new SimpleApnsPushNotification(
                    String.format("%064x", begin + n), topic, body, until,
                    DeliveryPriority.IMMEDIATE, PushType.LIVE_ACTIVITY))
                .whenComplete((answer, error) -> {
                    if (error != null || !answer.isAccepted()) failed.incrementAndGet();
                    room.release();
                    done.countDown();
                });
        }
        done.await();
        return (System.nanoTime() - start) / 1e9;
    }

    public static void main(String[] a) throws Exception {
        ApnsClient client = new ApnsClientBuilder()
            .setApnsServer("localhost", Integer.parseInt(a[0]))
            .setTrustedServerCertificateChain(new File(a[1]))
            .setSigningKey(ApnsSigningKey.loadFromPkcs8File(new File(a[2]), a[4], a[3]))
            .build();
        int count = Integer.parseInt(a[6]);
        String body = new String(Files.readAllBytes(Paths.get(a[7])));
        for (double warm = 0; warm < 8; ) warm += run(client, a[5], body, 0, 20_000);
        double wall = run(client, a[5], body, 100_000, count);
        client.close().get();
        System.out.println("{\"count\": " + count + ", \"wall\": " + wall + ", \"failed\": " + failed + "}");
    }
}
