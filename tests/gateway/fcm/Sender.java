// Sends a message for each line "ID TOKEN EVENT N" on stdin with firebase-admin for Java, and prints what each
// came to. Argument: the service account's file.
import com.google.auth.oauth2.GoogleCredentials;
import com.google.firebase.FirebaseApp;
import com.google.firebase.FirebaseOptions;
import com.google.firebase.messaging.ApnsConfig;
import com.google.firebase.messaging.Aps;
import com.google.firebase.messaging.ApsAlert;
import com.google.firebase.messaging.FirebaseMessaging;
import com.google.firebase.messaging.FirebaseMessagingException;
import com.google.firebase.messaging.Message;
import com.google.firebase.messaging.Notification;
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.Map;

public class Sender {
  static Message message(String token, String event, long n) {
    if (event.equals("alert")) {
      Notification shown = Notification.builder().setTitle("Goal").build();
      return Message.builder().setToken(token).setNotification(shown).build();
    }
    Map<String, Object> custom = new HashMap<>();
    custom.put("timestamp", System.currentTimeMillis() / 1000 + n);
    custom.put("event", event);
    custom.put("content-state", Map.of("n", n));
    Aps.Builder aps = Aps.builder();
    if (event.equals("start")) {
      custom.put("attributes-type", "Match");
      custom.put("attributes", Map.of("game", "Boccia"));
      custom.put("input-push-token", 1);
      aps.setAlert(ApsAlert.builder().setTitle("Kick-off").setBody("It begins").build());
    }
    ApnsConfig apns =
        ApnsConfig.builder().setLiveActivityToken(token).setAps(aps.putAllCustomData(custom).build()).build();
    return Message.builder().setToken("registration").setApnsConfig(apns).build();
  }

  public static void main(String[] given) throws Exception {
    FirebaseApp.initializeApp(
        FirebaseOptions.builder()
            .setCredentials(GoogleCredentials.fromStream(new FileInputStream(given[0])))
            .build());
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] words = line.split(" ");
      String said;
      try {
        said = FirebaseMessaging.getInstance().send(message(words[1], words[2], Long.parseLong(words[3])));
      } catch (FirebaseMessagingException error) {
        Object code = error.getMessagingErrorCode();
        said = code == null ? error.toString() : code.toString();
      }
      System.out.println(words[0] + " " + said);
    }
    System.exit(0);
  }
}
