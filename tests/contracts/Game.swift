import ActivityKit

struct GameAttributes: ActivityAttributes {
    struct ContentState: Codable, Hashable { var home: Int; var scorer: String?; var odds: Double? }
    var title: String
}
