from twisted.application.service import ServiceMaker

everything = ServiceMaker(
    "towerbus",
    "towerbus.tap",
    "Real-time event broadcast: WebSocket, HTTP and an embedded log in one process",
    "towerbus",
)
