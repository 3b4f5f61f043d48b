// An echo server in Go: a goroutine for each connection.
package main

import (
	"fmt"
	"net"
	"os"
)

func serve(client *net.TCPConn) {
	defer client.Close()
	// Go switches Nagle's algorithm off; the others leave it as it is.
	client.SetNoDelay(false)
	buffer := make([]byte, 64*1024)
	for {
		count, err := client.Read(buffer)
		if err != nil {
			return
		}
		if _, err := client.Write(buffer[:count]); err != nil {
			return
		}
	}
}

func main() {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	for {
		if client, err := listener.AcceptTCP(); err == nil {
			go serve(client)
		}
	}
}
